"""A cluster on hosts of their own for `benchmarks.chaos`: a head, workers that come back, an endpoint, a client.

Host 1 is the head: drivers, Ray's control service and the endpoint, which has a resource of its own there. Workers have
two CPUs each. As in cluster.yaml, a node whose Ray has ended is started again, and a host that is gone is replaced. The
client's host is no part of the cluster. Clocks of all processes of the cluster can be set: libfaketime tells them the
time, but for the one by which time-outs are counted.
"""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import yaml

from benchmarks.code import ROOT
from benchmarks.hosts import HostProcess, Hosts, address
from benchmarks.processes import tree
from raysr.errors import RunError

HEAD, CLIENT, WORKERS = 1, 2, 2
ENDPOINT = f"http://{address(HEAD)}:8000"
DASHBOARD = f"http://{address(HEAD)}:8265"
START_S = 180.0
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


class Cluster:
    """The cluster, for as long as the block runs.

    Args:
        work: the folder that all hosts see.
        pool: what the endpoint serves.
    """

    def __init__(self, work: Path, pool: Path) -> None:
        self._work, self._pool = work, pool
        self._ended = contextlib.ExitStack()
        kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        quick = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "10"}
        self._environment = {**kept, **token, **quick, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.workers: dict[int, HostProcess] = {}
        self._over = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.clock(0)
        self.hosts = self._ended.enter_context(Hosts(2, shared=[self._work]))
        self._ended.callback(self._over.set)
        try:
            self._node(
                HEAD,
                "--head",
                "--port=6379",
                f"--dashboard-host={address(HEAD)}",
                "--num-cpus=0",
                '--resources={"serving": 4}',
            )
            for _ in range(WORKERS):
                self.add()
            watching = threading.Thread(target=self._watch, name="supervisor", daemon=True)
            watching.start()
            self._ended.callback(watching.join)
            self._ended.callback(self._over.set)
        except BaseException:
            self._ended.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.close()

    def add(self) -> int:
        """Plug in another host, with a node."""
        host = self.hosts.add()
        self.workers[host] = self._node(host, f"--address={address(HEAD)}:6379", "--num-cpus=2")
        return host

    def switch_off(self, host: int) -> None:
        """Switch a worker's host off; another one takes its place."""
        with self._lock:
            self.workers.pop(host)
            self.hosts.kill(host)
            self.add()

    def clock(self, seconds: float) -> None:
        """Set all clocks of the cluster by so much ahead, or behind."""
        (self._work / "clock").write_text(f"{seconds:+.0f}s\n")

    def driver(self, config: Path, log: Path) -> HostProcess:
        """Start `raysr ipl` on the head."""
        return self._start(HEAD, [sys.executable, "-m", "raysr.cli", "ipl", "--config", config], log)

    def speaker(self, speech: Path, told: Path) -> HostProcess:
        """Start the client, which speaks to the endpoint again and again."""
        command = [sys.executable, "-m", "benchmarks.chaos_client", ENDPOINT, speech, told]
        return self._start(CLIENT, command, self._work / "client.log")

    def processes(self, named: str) -> list[int]:
        """Return the processes of all hosts whose command line contains ``named``."""
        found = []
        for pid in tree(os.getpid()):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                if named.encode() in line and not line.startswith(b"nsenter"):  # which waits for it outside
                    found.append(pid)
        return found

    def serve(self) -> None:
        """Deploy the endpoint."""
        config = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text(encoding="utf-8"))
        config["proxy_location"] = "HeadOnly"
        application = config["applications"][0]
        application["args"] |= {"pool": str(self._pool), "cpus_per_replica": 0}
        application["deployments"] = [
            {"name": "Endpoint", "ray_actor_options": {"num_cpus": 0, "resources": {"serving": 1}}}
        ]
        path = self._work / "serve.yaml"
        path.write_text(yaml.safe_dump(config))
        log = self._work / "serve.log"
        command = [sys.executable, "-m", "ray.serve.scripts", "deploy", path, "--address", DASHBOARD]
        if self._start(HEAD, command, log).wait():
            raise RunError(f"the endpoint was not deployed: {log.read_text()[-2000:]}")

    def _watch(self) -> None:
        """Start nodes again whose Ray has ended, as the supervisor of cluster.yaml does."""
        while not self._over.wait(1.0):
            with self._lock:
                for host, node in list(self.workers.items()):
                    if node.poll() is not None or not self._lives(host):
                        with contextlib.suppress(ProcessLookupError):
                            node.kill()
                        node.wait()
                        with contextlib.suppress(RunError):  # the cable may still be pulled
                            self.workers[host] = self._node(
                                host, f"--address={address(HEAD)}:6379", "--num-cpus=2"
                            )

    def _lives(self, host: int) -> bool:
        """Say whether a host has a raylet: `ray start --block` outlives one that ended in an orderly way."""
        return any(f"--node_ip_address={address(host)}".encode() in line for line in _raylets())

    def _node(self, host: int, *place: str) -> HostProcess:
        command: list[str | Path] = [Path(sys.executable).with_name("ray"), "start", "--block"]
        command += ["--disable-usage-stats", f"--node-ip-address={address(host)}"]
        command += ["--object-store-memory=150000000", *place]
        log = self._work / f"node-{host}.log"
        node = self._start(host, command, log)
        until = time.monotonic() + START_S
        while "Ray runtime started" not in log.read_text():
            if node.poll() is not None or time.monotonic() > until or self._over.is_set():
                raise RunError(f"Ray did not start on host {host}: see {log}")
            time.sleep(0.1)
        return node

    def _start(self, host: int, command: Sequence[str | Path], log: Path) -> HostProcess:
        clock = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._work / "clock"),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }
        environment = {**self._environment, **(clock if host != CLIENT else {})}
        with log.open("ab") as file:
            return self.hosts.run(host, command, environment, stdout=file, stderr=subprocess.STDOUT)


def missing() -> str | None:
    """Return what this machine lacks beside what hosts need."""
    if not FAKETIME.exists():
        return f"clocks are set by libfaketime: {FAKETIME} is missing; on Debian it is in libfaketime"
    return None if shutil.which("nsenter") else "several hosts need util-linux"


def _raylets() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes()
            if b"raylet/raylet" in line:
                yield line.replace(b"\0", b" ")


def heard(told: Path, since: float) -> list[dict[str, object]]:
    """Return what the client has noted since a time."""
    lines = told.read_text().splitlines() if told.exists() else []
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["began"] >= since]
