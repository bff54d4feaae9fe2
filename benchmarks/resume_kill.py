"""Processes that train: found below the one that started them, disturbed, and awaited where they go on."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.resume_rows import read_rows
from raysr.errors import RunError

POLL_S = 0.01


@dataclass(frozen=True)
class Fault:
    """What became of one.

    Attributes:
        reached: the last step that was told of before.
        resumed: the step of the checkpoint that the training went on from; 0 where there was none.
        seconds: until it told of the next step.
    """

    reached: int
    resumed: int
    seconds: float

    @property
    def lost(self) -> int:
        """Steps that were taken once more."""
        return self.reached - self.resumed


def wait_until(reached: Callable[[], object], what: str, patience: float = 200) -> None:
    """Return when something has been reached; raise RunError where it is not within so many seconds."""
    deadline = time.monotonic() + patience
    while not reached():
        if time.monotonic() > deadline:
            raise RunError(f"{what} did not come within {patience:g} s")
        time.sleep(POLL_S)


def strike(
    change: Callable[[], object],
    training: Callable[[], list[int]],
    count: int,
    out: Path,
    wait: Callable[[Callable[[], object], str], None] = wait_until,
) -> Fault:
    """Let a fault strike and return when the training in ``out`` has gone on.

    Args:
        change: the fault.
        training: returns the processes that train.
        count: of those that go on; none of them is one that was there before.
        out: the training's folder.
        wait: returns when what it is given is so; its second argument says what that is.
    """
    before, started = set(training()), time.monotonic()
    change()
    wait(
        lambda: len(now := training()) == count and before.isdisjoint(now), f"a training by {count} processes"
    )
    rows = len(read_rows(out))  # of those before: processes need seconds to come to a step
    wait(lambda: len(read_rows(out)) > rows, "a step after a restart")
    seconds = time.monotonic() - started
    reached = read_rows(out)[rows - 1]["step"] if rows else 0
    return Fault(reached, read_rows(out)[rows]["step"] - 1, seconds)


def ray_workers(root: int) -> list[int]:
    """Return the workers of Ray Train among the processes below ``root``."""
    return [process for process in _below(root) if "RayTrainWorker" in _read(process, "cmdline")]


def torchrun_ranks(root: int) -> list[int]:
    """Return the ranks that a `torchrun` has started, by their number."""
    ranks = {}
    for process in _below(root):
        variables = dict(line.partition("=")[::2] for line in _read(process, "environ").split("\0"))
        if "LOCAL_RANK" in variables:
            ranks[int(variables["RANK"])] = process
    return [ranks[rank] for rank in sorted(ranks)]


def _below(root: int) -> Iterator[int]:
    """Yield the living processes below ``root``."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        _, _, fields = _read(int(folder.name), "stat").rpartition(")")
        if fields and fields.split()[0] != "Z":
            parents[int(folder.name)] = int(fields.split()[1])
    for process in sorted(parents):
        above = process
        while above := parents.get(above, 0):
            if above == root:
                yield process
                break


def _read(process: int, name: str) -> str:
    try:
        return Path(f"/proc/{process}/{name}").read_text(errors="replace")
    except OSError:
        return ""  # it has ended
