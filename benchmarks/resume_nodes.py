"""Ray on hosts of their own that can be switched off and replaced: a head that trains nothing, and workers."""

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from benchmarks.hosts import HostProcess, Hosts, address
from raysr.errors import RunError

HEAD = f"{address(1)}:6379"
START_S = 120.0


class Nodes:
    """The nodes, each with room for one worker, for as long as the block runs.

    Args:
        workers: how many there are beside the head.
        shared: the folder that all hosts see, where trainings and logs are written.
        environment: further variables of all workers.
    """

    def __init__(self, workers: int, shared: Path, environment: Mapping[str, str]) -> None:
        self._count, self._shared = workers, shared
        self._ended = contextlib.ExitStack()
        kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._environment = {**kept, **token, "OMP_NUM_THREADS": "1", **environment}
        self.workers: list[int] = []

    def __enter__(self) -> Self:
        self._hosts = self._ended.enter_context(Hosts(1, shared=[self._shared]))
        try:
            self._start_node(1, "--head", "--port=6379", "--num-cpus=0", "--include-dashboard=false")
            for _ in range(self._count):
                self.add()
        except BaseException:
            self._ended.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.close()

    def add(self) -> None:
        """Plug in another host."""
        host = self._hosts.add()
        self._start_node(host, f"--address={HEAD}", "--num-cpus=1")
        self.workers.append(host)

    def kill(self, host: int) -> None:
        """Switch a worker's host off."""
        self.workers.remove(host)
        self._hosts.kill(host)

    def start(self, command: Sequence[str | Path], log: Path) -> HostProcess:
        """Start a command on the head."""
        return self._start(1, command, log)

    def _start_node(self, host: int, *place: str) -> None:
        command: list[str | Path] = [
            Path(sys.executable).with_name("ray"),
            "start",
            "--block",
            "--disable-usage-stats",
        ]
        command += [f"--node-ip-address={address(host)}", "--object-store-memory=100000000", *place]
        log = self._shared / f"node-{host}.log"
        node = self._start(host, command, log)
        until = time.monotonic() + START_S
        while "Ray runtime started" not in log.read_text():
            if node.poll() is not None or time.monotonic() > until:
                raise RunError(f"Ray did not start on host {host}: see {log}")
            time.sleep(0.1)

    def _start(self, host: int, command: Sequence[str | Path], log: Path) -> HostProcess:
        with log.open("wb") as file:
            return self._hosts.run(host, command, self._environment, stdout=file, stderr=subprocess.STDOUT)
