"""The demo on a cluster of two hosts, submitted from a third, which then speaks to the endpoint there.

python -m benchmarks.two_hosts --json results/two_hosts.json

The hosts are network namespaces of this machine (root and iproute2): a head and a worker, each a node of Ray's, and a
client that is no part of the cluster and has a shared folder with it. By `raysr jobs submit` the client has the
cluster work on `jobs/conf/demo.yaml`, by `serve deploy` on `serve/config.yaml` with the run's pool; a held-out
utterance that it then sends, as a file and as a live stream, has to come back from the last student. Everything asks
for the cluster's token.
"""

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.code import ROOT
from benchmarks.hosts import HostProcess, Hosts, address
from raysr.audio.files import write_wav
from raysr.corpus.load import load_waveform
from raysr.demo import SHORT_RUN, TINY_MODEL, held_out_utterance
from raysr.errors import RunError

HEAD, WORKER, CLIENT = 1, 2, 3
DASHBOARD, ENDPOINT = f"http://{address(HEAD)}:8265", f"http://{address(HEAD)}:8000"
START_S, ANSWER_S = 120.0, 180.0
SHORT = [*SHORT_RUN, *TINY_MODEL, "selector={kind: random, share: 0.02, first_cycle: 1}"]
SPEAK = """
import json, sys, time, urllib.request
from raysr.serving.client import transcribe_http, transcribe_ws
url, file, patience = sys.argv[1], sys.argv[2], time.monotonic() + float(sys.argv[3])
while True:
    try:
        urllib.request.urlopen(f"{url}/healthz", timeout=5)
        break
    except OSError as error:
        if time.monotonic() > patience:
            sys.exit(f"{url} does not answer: {error}")
        time.sleep(0.5)
whole, live = transcribe_http(url, file), transcribe_ws(url, file)
print(json.dumps({"model": live.model, "file": whole.text, "stream": live.text}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/two_hosts"))
    parser.add_argument("--short", action="store_true", help="a few updates only: does everything work?")
    parser.add_argument("overrides", nargs="*", help="of the recipe: dotted.key=value")
    options = parser.parse_intermixed_args()
    work = options.work.absolute()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    results = measure(work, [*(SHORT if options.short else []), *options.overrides])
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


def measure(work: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Submit, serve and speak; return what came of it."""
    utterance = held_out_utterance()
    write_wav(work / "held-out.wav", load_waveform(utterance))
    with Hosts(3, shared=[work]) as hosts:
        cluster = Machines(hosts, work, secrets.token_hex(32))
        cluster.node(HEAD, "--head", "--port=6379", f"--dashboard-host={address(HEAD)}")
        cluster.node(WORKER, f"--address={address(HEAD)}:6379")
        began = time.monotonic()
        submit = ["submit", "--config", "jobs/conf/demo.yaml", "--storage", work, "--follow", *overrides]
        cluster.client("raysr.cli", "jobs", *submit, "--address", DASHBOARD)
        took = time.monotonic() - began
        sent = {f"h{host}": hosts.sent(host) for host in (HEAD, WORKER)}
        run = work / "runs" / "demo"
        (work / "serve.yaml").write_text(yaml.safe_dump(serve_config(run / "pool")))
        cluster.client("ray.serve.scripts", "deploy", work / "serve.yaml", "--address", DASHBOARD)
        told = cluster.client("-c", SPEAK, ENDPOINT, work / "held-out.wav", ANSWER_S)
    report = json.loads((run / "report.json").read_text())
    return {
        "minutes": round(took / 60, 2),
        "bytes_sent": sent,
        "finished": report["finished"],
        "wer": [cycle["wer"] for cycle in report["cycles"]],
        "reference": utterance.text,
        **json.loads(told.splitlines()[-1]),
    }


def serve_config(pool: Path) -> dict[str, Any]:
    """Return `serve/config.yaml` with another pool."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text(encoding="utf-8"))
    config["applications"][0]["args"]["pool"] = str(pool)
    return config


class Machines:
    """Starts nodes on hosts and carries out the client's commands, all with one token.

    Args:
        hosts: there are three of them.
        work: the folder that all of them see, in which logs are written.
        token: what the cluster asks for.
    """

    def __init__(self, hosts: Hosts, work: Path, token: str) -> None:
        self._hosts, self._work = hosts, work
        kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        asked = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        self._environment = {**kept, **asked, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def node(self, host: int, *place: str) -> None:
        """Start a node of Ray's, and return when it has joined."""
        command: list[str | Path] = [
            Path(sys.executable).with_name("ray"),
            "start",
            "--block",
            "--num-cpus=6",
        ]
        command += [f"--node-ip-address={address(host)}", "--object-store-memory=300000000", *place]
        log = self._work / f"node-{host}.log"
        node = self._start(host, command, log)
        until = time.monotonic() + START_S
        while "Ray runtime started" not in log.read_text():
            if node.poll() is not None or time.monotonic() > until:
                raise RunError(f"Ray did not start on host {host}: see {log}")
            time.sleep(0.1)

    def client(self, module: str, *arguments: object) -> str:
        """Run a module, or code after ``-c``, on the client and return what it prints; raise RunError if it fails."""
        words = [module] if module == "-c" else ["-m", module]
        log = self._work / "client.log"
        process = self._start(CLIENT, [sys.executable, *words, *map(str, arguments)], log)
        if process.wait():
            raise RunError(f"{module} ended with {process.returncode}:\n{log.read_text()[-2000:]}")
        return log.read_text()

    def _start(self, host: int, command: Sequence[str | Path], log: Path) -> HostProcess:
        with log.open("wb") as file:
            return self._hosts.run(host, command, self._environment, stdout=file, stderr=subprocess.STDOUT)


if __name__ == "__main__":
    main()
