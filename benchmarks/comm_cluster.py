"""Ray on two hosts, a node of one worker on each, and trainings that are timed while their link changes its rate."""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from benchmarks.hosts import HostProcess, Hosts, address
from raysr.errors import RunError
from raysr.train.job import TrainJob

RANKS = 2
HEAD = f"{address(1)}:6379"
PROGRAMS = Path(sys.executable).parent
WARM = 3  # steps before any that is timed: memory is got, DDP puts its buckets in order
SKIPPED = 1  # steps after a change of the link's rate
START_S, STEP_S, END_S = 120.0, 180.0, 400.0  # how long is waited for a node, a step, a training's end


@dataclass(frozen=True)
class Window:
    """Steps that are timed on one link.

    Attributes:
        link: its name.
        mbit: its rate; None for as fast as it goes.
    """

    link: str
    mbit: float | None
    steps: int


@dataclass(frozen=True)
class Timed:
    """What was seen in a window.

    Attributes:
        metrics: of each step, rank 0's.
        sent: bytes that the hosts' interfaces sent, a step, the mean over hosts.
    """

    metrics: list[dict[str, Any]]
    sent: float


class Cluster:
    """Two hosts with cores of their own and a Ray node each, for as long as the block runs.

    Args:
        shared: the folder that both hosts see, where trainings and logs are written.
    """

    def __init__(self, shared: Path) -> None:
        self._shared = shared
        self._ended = contextlib.ExitStack()
        kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        self._environment = {
            **kept,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "OMP_NUM_THREADS": "1",
        }

    def __enter__(self) -> Self:
        self._shared.mkdir(parents=True, exist_ok=True)
        self._hosts = self._ended.enter_context(Hosts(RANKS, shared=[self._shared]))
        try:
            for host in range(1, RANKS + 1):
                self._start_node(host)
        except BaseException:
            self._ended.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.close()

    def rate(self, mbit: float | None) -> None:
        """Let so many Mbit/s pass between the hosts, each way."""
        for host in range(1, RANKS + 1):
            self._hosts.rate(host, mbit)

    def sent(self) -> float:
        """Return the bytes that a host's interface has sent, the mean over hosts."""
        return sum(self._hosts.sent(host) for host in range(1, RANKS + 1)) / RANKS

    def timed(self, job: TrainJob, windows: Sequence[Window], folder: Path) -> dict[str, Timed]:
        """Carry out a training of :func:`steps_of` steps and return what was seen in each window, by link.

        Its first steps go over a link as fast as it gets.
        """
        self.rate(None)
        found = {}
        with self._training(job, folder) as steps:
            _take(steps, WARM)
            for window in windows:
                self.rate(window.mbit)
                _take(steps, SKIPPED)
                before = self.sent()
                metrics = _take(steps, window.steps)
                found[window.link] = Timed(metrics, (self.sent() - before) / window.steps)
            self.rate(None)
        return found

    def noted(self, job: TrainJob, mbit: float | None, folder: Path) -> dict[str, Any]:
        """Carry out a training that starts on a link of some rate, and return what it noted of its exchange."""
        self.rate(mbit)
        with self._training(job, folder):
            pass
        notes = map(json.loads, (Path(job.out) / "notes.jsonl").read_text().splitlines())
        return next(note for note in notes if "comm" in note)

    def examined(self, mbit: float | None, model_mb: float, folder: Path) -> dict[str, Any]:
        """Return what ``raysr preflight --cluster`` reports of a link of some rate."""
        self.rate(mbit)
        report = folder / "report.json"
        command: list[str | Path] = [PROGRAMS / "raysr", "preflight", "--cluster", "--address", HEAD]
        command += ["--dir", folder, "--json", report, "--model-mb", f"{model_mb:.0f}"]
        log = folder / "preflight.log"
        process = self._start(1, command, log)
        if process.wait(END_S):
            raise RunError(f"the pre-flight ended with {process.returncode}\n{tail(log)}")
        return dict(json.loads(report.read_text()))

    @contextlib.contextmanager
    def _training(self, job: TrainJob, folder: Path) -> Iterator[Iterator[dict[str, Any]]]:
        """Start a training anew, hand its steps' metrics out as they come, and wait for its end."""
        log, out = folder / "driver.log", Path(job.out)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        (folder / "job.json").write_text(job.model_dump_json())
        command: list[str | Path] = [sys.executable, "-m", "benchmarks.comm_fit", HEAD, folder / "job.json"]
        driver = self._start(1, command, log)
        try:
            yield follow(out / "metrics.jsonl", lambda: driver.poll() is not None, STEP_S)
            driver.wait(END_S)
        except (RunError, subprocess.TimeoutExpired) as error:
            raise RunError(f"{error}\n{tail(log)}") from error
        finally:
            if driver.poll() is None:
                driver.kill()
                driver.wait()
        if driver.returncode:
            raise RunError(f"the training in {out} ended with {driver.returncode}\n{tail(log)}")

    def _start_node(self, host: int) -> None:
        place = ["--head", "--port=6379", "--include-dashboard=false"] if host == 1 else [f"--address={HEAD}"]
        command: list[str | Path] = [
            PROGRAMS / "ray",
            "start",
            "--block",
            "--num-cpus=1",
            f"--node-ip-address={address(host)}",
            "--object-store-memory=100000000",
            "--disable-usage-stats",
            *place,
        ]
        log = self._shared / f"node-{host}.log"
        node = self._start(host, command, log)
        until = time.monotonic() + START_S
        while "Ray runtime started" not in log.read_text():
            if node.poll() is not None or time.monotonic() > until:
                raise RunError(f"Ray did not start on host {host}\n{tail(log)}")
            time.sleep(0.1)

    def _start(self, host: int, command: Sequence[str | Path], log: Path) -> HostProcess:
        pinned = ["taskset", "--cpu-list", ",".join(map(str, cores(host)))]
        with log.open("wb") as file:
            return self._hosts.run(
                host, [*pinned, *command], self._environment, stdout=file, stderr=subprocess.STDOUT
            )


def cores(host: int) -> list[int]:
    """Return the cores that are a host's alone, or all where there are too few."""
    found = sorted(os.sched_getaffinity(0))
    return found[host - 1 :: RANKS] if len(found) >= RANKS else found


def steps_of(windows: Sequence[Window]) -> int:
    """Return how many steps a training takes for its windows; the last one, after which replicas meet, is in none."""
    return WARM + sum(SKIPPED + window.steps for window in windows) + 1


def follow(
    path: Path, over: Callable[[], bool], patience: float, pause: float = 0.01
) -> Iterator[dict[str, Any]]:
    """Yield each line of a file of JSON lines, which need not be there yet, as soon as it is whole.

    Args:
        path: of the file.
        over: whether nothing more will be written.
        patience: seconds in which the next line has to come.
        pause: seconds between looks.

    Raises:
        RunError: there is no further line.
    """
    number, line, since = 0, "", time.monotonic()
    with contextlib.ExitStack() as stack:
        file: IO[str] | None = None
        while True:
            none_will_come = over() or time.monotonic() > since + patience
            if file is None and path.exists():
                file = stack.enter_context(path.open(encoding="utf-8"))
            line += file.readline() if file else ""
            if line.endswith("\n"):
                number += 1
                yield json.loads(line)
                line, since = "", time.monotonic()
            elif none_will_come:
                raise RunError(f"{path} has no more than {number} lines")
            else:
                time.sleep(pause)


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _take(steps: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return [next(steps) for _ in range(count)]
