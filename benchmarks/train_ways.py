"""The two ways in which the same training goes through this machine, in turns of seconds, seen from outside."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.code import ROOT
from benchmarks.comm_cluster import tail
from benchmarks.processes import cpu_by_process, tree
from raysr.errors import RunError
from raysr.train.job import TrainJob

RANKS = 2
RAY, TORCHRUN = "ray", "torchrun"
_FIT = ("-m", "benchmarks.train_fit")
_RUN = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}")
WAYS: Mapping[str, Sequence[str]] = {TORCHRUN: [*_RUN, *_FIT, TORCHRUN], RAY: [*_FIT, RAY]}
TURN_S = 5.0
START_S = 300.0  # how long is waited for the first metrics …
END_S = 1800.0  # … and for all that a training does after them
PAUSE_S = 0.02  # between looks at the metrics
OF_OUR_OWN = ("RAY_ADDRESS", "OMP_NUM_THREADS")  # each way sets its number of threads itself


@dataclass(frozen=True)
class Row:
    """Metrics of some steps.

    Attributes:
        metrics: a line of ``metrics.jsonl``.
        at: seconds of the training's own time, which stands still while it is stopped, at which the line was there.
        whole: whether it was not stopped since the line before, so that its own clock tells the truth.
        in_turns: whether the other trainings still went on, so that they had as much of the machine as this one.
    """

    metrics: dict[str, Any]
    at: float
    whole: bool
    in_turns: bool


@dataclass(frozen=True)
class Seen:
    """What a training showed.

    Attributes:
        rows: of its metrics.
        startup_s: from the command to the first step.
        total_s: from the command to its end, in its own time.
        beside: cores that all its processes but the ranks took, while trainings had turns.
    """

    rows: list[Row]
    startup_s: float
    total_s: float
    beside: float


def carry_out(jobs: Mapping[str, TrainJob], folder: Path) -> dict[str, Seen]:
    """Train in several ways, of which only one goes on at any time: all processes of the others are stopped.

    They start one after the other; once the first metrics of all are there, each has its turn of :data:`TURN_S`, in
    the order given.

    Args:
        jobs: what is trained, by way.
        folder: for what each says.

    Raises:
        RunError: one failed, or took too long; with the end of its output.
    """
    with ExitStack() as stack:
        trainings = {}
        for way, job in jobs.items():
            trainings[way] = stack.enter_context(_started(way, job, folder / way))
            trainings[way].go_on(START_S, until_rows=1)
        turns = cycle(trainings.values())
        while not any(training.done for training in trainings.values()):
            next(turns).go_on(TURN_S, in_turns=True)
        return {way: training.finished() for way, training in trainings.items()}


class _Training:
    """A training's processes, which are stopped unless told to go on."""

    def __init__(self, way: str, job: TrainJob, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "job.json").write_text(job.model_dump_json())
        self._way, self._log, self._metrics = way, folder / "output.log", Path(job.out) / "metrics.jsonl"
        self._steps = job.train.steps
        self._rows: list[Row] = []
        self._time, self._stopped = 0.0, True
        self._taken: list[tuple[float, dict[int, float]]] = []  # CPU seconds by process, at times of its own
        environment = {name: value for name, value in os.environ.items() if name not in OF_OUR_OWN}
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, *WAYS[way], str(folder / "job.json")],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def done(self) -> bool:
        """Whether it has taken its last step."""
        return bool(self._rows) and self._rows[-1].metrics["step"] == self._steps

    def go_on(self, seconds: float, until_rows: int | None = None, in_turns: bool = False) -> None:
        """Let it run for so long, at most to its last step, or until it has so many rows, which it then must."""
        begun, before = time.monotonic(), self._time
        if in_turns and not self._taken:
            self._taken.append((self._time, cpu_by_process(self._process.pid)))
        self._signal(signal.SIGCONT)
        while True:
            over = self._process.poll() is not None
            self._time = before + time.monotonic() - begun
            self._look(in_turns)
            if self.done or (until_rows is not None and len(self._rows) >= until_rows):
                break
            if over:
                raise RunError(f"{self._way} ended with {self._process.returncode}\n{tail(self._log)}")
            if self._time - before >= seconds:
                if until_rows is not None:
                    raise RunError(f"{self._way} has not begun in {seconds:g} s\n{tail(self._log)}")
                break
            time.sleep(PAUSE_S)
        self._signal(signal.SIGSTOP)
        self._time = before + time.monotonic() - begun
        time.sleep(PAUSE_S)  # until the last of its threads stands still
        self._look(in_turns)
        self._stopped = True
        if in_turns:
            self._taken[1:] = [(self._time, cpu_by_process(self._process.pid))]

    def finished(self) -> Seen:
        """Let it run to its end and return what was seen."""
        if not self.done:
            self.go_on(END_S)
        if not self.done:
            raise RunError(f"{self._way} has not ended in {END_S:g} s\n{tail(self._log)}")
        begun = time.monotonic()
        self._signal(signal.SIGCONT)
        try:
            status = self._process.wait(END_S)
        except subprocess.TimeoutExpired as error:
            raise RunError(f"{self._way}: {error}\n{tail(self._log)}") from error
        if status:
            raise RunError(f"{self._way} ended with {status}\n{tail(self._log)}")
        first = self._rows[0]
        startup = first.at - first.metrics["step"] * first.metrics["seconds_per_step"]
        return Seen(self._rows, startup, self._time + time.monotonic() - begun, self._beside())

    def kill(self) -> None:
        """End all processes that are left."""
        if self._process.poll() is None:
            self._signal(signal.SIGKILL)
        self._process.wait()

    def _beside(self) -> float:
        """Return the cores that all processes but the ranks, which are the busiest, have taken in turns."""
        if len(self._taken) < 2:
            return math.nan
        (begin, before), (end, after) = self._taken
        taken = sorted(seconds - before.get(process, 0.0) for process, seconds in after.items())
        return sum(taken[:-RANKS]) / (end - begin)

    def _look(self, in_turns: bool) -> None:
        lines = self._metrics.read_text().splitlines(keepends=True) if self._metrics.exists() else []
        for line in lines[len(self._rows) :]:
            if line.endswith("\n"):
                self._rows.append(Row(json.loads(line), self._time, not self._stopped, in_turns))
                self._stopped = False

    def _signal(self, number: int) -> None:
        told: set[int] = set()
        while new := set(tree(self._process.pid)) - told:  # a process may start another one meanwhile
            told |= new
            for process in new:
                with suppress(ProcessLookupError):
                    os.kill(process, number)


@contextmanager
def _started(way: str, job: TrainJob, folder: Path) -> Iterator[_Training]:
    training = _Training(way, job, folder)
    try:
        yield training
    finally:
        training.kill()
