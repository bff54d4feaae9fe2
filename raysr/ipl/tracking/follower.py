"""Hands what a run writes down about itself to trackers, as it goes; numbers and configuration, no audio and no text.

The run's own files are the source, so that a tracker that is slow, away or broken holds nobody up: what it has missed
is handed over when the run goes on.
"""

import json
import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import methodcaller
from pathlib import Path
from typing import Any, Protocol

from raysr.ipl.handover import write_json

EVERY_S = 5.0
CLOSING_S = 30.0
Numbers = dict[str, float]


class Tracker(Protocol):
    """A place where people look at numbers."""

    def training(self, cycle: int, step: int, numbers: Numbers) -> None:
        """Take the metrics of a training's step."""

    def cycle(self, number: int, numbers: Numbers) -> None:
        """Take what a cycle came to."""

    def step(self, cycle: int, name: str, seconds: float | None) -> None:
        """Take that a step of a cycle has begun, or how long it took."""
        if seconds is not None:
            self.cycle(cycle, {f"seconds/{name}": seconds})

    def flush(self) -> None:
        """See to it that what was taken is kept; called at every look, also where nothing is new."""

    def close(self) -> None:
        """Take no more."""


class Follower:
    """Reads a run's folder and tells a tracker what is new in it.

    Args:
        folder: of the run.
        name: of the tracker.
        make: makes it, when there is something to tell.
        say: prints a line. An error of the tracker's ends the telling, and nothing else.
        lasting: whether the tracker keeps what it is told; one that does not is told all of it at each start.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        make: Callable[[], Tracker],
        say: Callable[[str], object],
        lasting: bool = True,
    ) -> None:
        self._folder, self._tracker_name, self._make, self._say = folder, name, make, say
        self._tracker: Tracker | None = None
        self._state = folder / "tracking" / f"{name}.json"
        self._lasting = lasting
        self._told: dict[str, int] = self._known() if lasting else {}
        self._broken = False

    def look(self) -> None:
        """Tell what is new: whole lines of metrics, and cycles' reports."""
        if self._broken:
            return
        try:
            if new := list(self._new()):
                self._tracker = self._tracker or self._make()
                for tell in new:
                    tell(self._tracker)
            if self._tracker is not None:
                self._tracker.flush()
            if new and self._lasting:
                self._state.parent.mkdir(parents=True, exist_ok=True)
                write_json(self._state, self._told)
        except Exception as error:  # a library's, or its server's
            self._broken = True
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            self._say(
                f"  {self._tracker_name} is told no more of this run until it is started again: {first}"
            )

    def close(self) -> None:
        """Tell the rest."""
        self.look()
        if self._tracker is not None and not self._broken:
            try:
                self._tracker.close()
            except Exception as error:
                self._say(f"  {self._tracker_name}: {error}")

    def _known(self) -> dict[str, int]:
        try:
            return dict(json.loads(self._state.read_text()))
        except (OSError, ValueError):
            return {}

    def _new(self) -> Iterator[Callable[[Tracker], None]]:
        """Yield what is to be told, in order, and take it for told."""
        for row in self._rows(self._folder / "events.jsonl"):
            if row.get("event") in ("step began", "step ended"):
                yield methodcaller("step", int(row["cycle"]), str(row["step"]), row.get("seconds"))
        for folder in sorted(self._folder.glob("cycles/[0-9]*")):
            cycle, report = int(folder.name), folder / "report.json"
            for row in self._rows(folder / "train" / "metrics.jsonl"):
                yield methodcaller("training", cycle, int(row["step"]), numbers(row, without=("step",)))
            if report.is_file() and not self._told.get(self._name(report)):
                self._told[self._name(report)] = 1
                yield methodcaller("cycle", cycle, numbers(_parsed(report.read_bytes()), without=("cycle",)))

    def _rows(self, path: Path) -> Iterator[dict[str, Any]]:
        """Yield the rows that are new; a line that is still being written is left for the next look."""
        if not path.is_file():
            return
        name = self._name(path)
        with path.open("rb") as file:
            begin = self._told.get(name, 0)
            if begin > file.seek(0, 2):
                begin = 0  # another training's
            file.seek(begin)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        for line in whole.splitlines():
            row = _parsed(line)
            if "step" in row:
                yield row
        self._told[name] = begin + len(whole)

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._folder))


def _parsed(text: bytes) -> dict[str, Any]:
    """Return a JSON object; nothing of what is none, such as what a power cut has left."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def followed(
    folder: Path,
    trackers: Mapping[str, Callable[[], Tracker]],
    say: Callable[[str], object],
    every: float = EVERY_S,
    forgetful: Collection[str] = (),
) -> Iterator[None]:
    """Tell trackers of a run, every so many seconds and at its end, for as long as the block runs.

    Those that are ``forgetful`` are told all of it from the beginning. One that does not answer in
    :data:`CLOSING_S` at the end is left behind.
    """
    over = threading.Event()

    def follow(follower: Follower) -> None:
        while not over.wait(every):
            follower.look()
        follower.close()

    threads = {
        name: threading.Thread(
            target=follow,
            args=(Follower(folder, name, make, say, lasting=name not in forgetful),),
            name=f"raysr-{name}",
            daemon=True,
        )
        for name, make in trackers.items()
    }
    for thread in threads.values():
        thread.start()
    try:
        yield
    finally:
        over.set()
        until = time.monotonic() + CLOSING_S
        for name, thread in threads.items():
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                say(f"  {name} does not answer; it is told the rest when the run is started again")


def numbers(row: Mapping[str, Any], without: Sequence[str] = (), prefix: str = "") -> Numbers:
    """Return the finite numbers of a row, those of mappings within under ``outer/inner``."""
    found: Numbers = {}
    for name, value in row.items():
        if name in without:
            continue
        if isinstance(value, Mapping):
            found |= numbers(value, (), f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found[prefix + name] = float(value)
    return found
