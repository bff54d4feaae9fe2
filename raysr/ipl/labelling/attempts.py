"""What a block was doing when its process died, kept on disk, so that the culprit is found and the rest is labelled.

An attempt at a block writes down whose turn it is before each step. If the process ends there, in native code, for
want of memory or by its own time-out, the next attempt reads who it was. The timer is that of ``faulthandler``: a
thread of the interpreter that needs no lock of Python's, so that a library which never comes back is ended as well.
"""

import faulthandler
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn

from raysr.corpus.disk import naming_folder
from raysr.errors import RunError

_BEGIN, _STEP, _LOST = b"begin\n", b"step ", b"lost "
_TIMEOUT, _FATAL = b"Timeout (", b"Fatal Python error: "
_FRAME = re.compile(rb'  File "([^"]+)", line (\d+) in (\S+)')
LOST_EXIT = 70


@dataclass(frozen=True)
class Death:
    """One attempt that did not come back.

    Attributes:
        names: the utterances whose turn it was.
        doing: what was done with them.
        reason: what is known of why, in a few words.
        timed_out: it was ended because it took too long.
    """

    names: frozenset[str]
    doing: str
    reason: str
    timed_out: bool


@dataclass(frozen=True)
class GivenUp:
    """Why an utterance is not tried again: ``kind`` is ``timeout`` or ``death``, ``reason`` one line."""

    kind: str
    reason: str


class Attempts:
    """The attempts at blocks, in a folder that every worker can write.

    Args:
        folder: one small file for each block under way.
        retries: how often what took its process down is tried again.
        timeout: seconds that a step may take for each utterance in it; None sets no time-out, and is for
            processes that are not ours to end.
    """

    def __init__(self, folder: Path, retries: int, timeout: float | None) -> None:
        self.folder, self.retries, self.timeout = folder, retries, timeout
        self._recalled: dict[Path, list[Death]] = {}

    def recall(self) -> None:
        """Hold what the folder knows now against its utterances in whatever block they are; nobody else is at work."""
        self._recalled = {path: _read(path) for path in self.folder.glob("*.attempts")}

    @contextmanager
    def at(self, names: Sequence[str]) -> Iterator["Attempt"]:
        """Attempt a block, known by its utterances; its file stays only if the process ends within, or is lost.

        Raises:
            CorpusError: the folder cannot be written.
        """
        key = hashlib.sha256("\n".join(names).encode()).hexdigest()[:24]
        path = self.folder / f"{key}.attempts"
        with naming_folder(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            deaths = self._deaths(path, frozenset(names))
            file = path.open("ab", buffering=0)
            file.write(b"\n" + _BEGIN)
        with file:
            attempt = Attempt(deaths, self.retries, self.timeout, file)
            try:
                yield attempt
            finally:
                attempt.over()
                if not attempt.is_lost:
                    path.unlink(missing_ok=True)

    def _deaths(self, path: Path, names: frozenset[str]) -> list[Death]:
        elsewhere = [d for other, deaths in self._recalled.items() if other != path for d in deaths]
        return [d for d in elsewhere if d.names & names] + (_read(path) if path.exists() else [])


@dataclass
class Attempt:
    """One attempt at a block, and what became of those before it.

    Attributes:
        deaths: of earlier attempts at the same block, oldest first.
        is_lost: its process can do nothing right any more, and has not ended.
    """

    deaths: list[Death]
    retries: int
    timeout: float | None
    file: BinaryIO = field(repr=False)
    is_lost: bool = False

    def step(self, names: Sequence[str], doing: str) -> None:
        """Say whose turn it is and give them their time; the step ends with the next one."""
        line = json.dumps([list(names), doing, f"0x{threading.get_ident():016x}"]).encode()
        with naming_folder(Path(self.file.name).parent):
            self.file.write(_STEP + line + b"\n")
        if self.timeout is not None:
            faulthandler.enable(self.file, all_threads=False)
            faulthandler.dump_traceback_later(self.timeout * len(names), exit=True, file=self.file)

    def over(self) -> None:
        """Stop the timer, and let go of the file."""
        if self.timeout is not None:
            faulthandler.cancel_dump_traceback_later()
            faulthandler.disable()

    def lost(self, reason: str) -> NoReturn:
        """End this process: it can do nothing right any more (a broken CUDA context).

        Raises:
            RunError: it is not ours to end; the next start knows of it as of a death.
        """
        self.file.write(_LOST + reason.encode() + b"\n")
        if self.timeout is not None:
            os._exit(LOST_EXIT)
        self.is_lost = True
        raise RunError(f"labelling failed: the GPU is lost ({reason}); start again to go on from here")

    @property
    def one_by_one(self) -> bool:
        """Whether the utterances have to be tried alone: they took too long together, or died often enough.

        A process that dies once may have been killed; so the block is first tried again as it is.
        """
        together = [death for death in self.deaths if len(death.names) > 1]
        return any(d.timed_out for d in together) or len(together) >= max(1, self.retries)

    def one_by_one_in(self, doing: str) -> bool:
        """Whether they have to be tried alone, and a death was in this step: doing it together may be cheaper."""
        return self.one_by_one and any(len(d.names) > 1 for d in self.deaths if d.doing == doing)

    def given_up(self, doing: str) -> dict[str, GivenUp]:
        """Return by id the utterances that this is not to be tried with again.

        Their process died with them alone at least once, and more often than is to be retried in all.
        """
        deaths = [death for death in self.deaths if death.doing == doing]
        found = {}
        for name in frozenset[str]().union(*(death.names for death in deaths)):
            mine = [death for death in deaths if name in death.names]
            alone = [death for death in mine if len(death.names) == 1]
            if alone and len(mine) > self.retries:
                found[name] = self._explain(alone[-1], len(mine))
        return found

    def _explain(self, last: Death, times: int) -> GivenUp:
        if last.timed_out:
            return GivenUp(
                "timeout", f"{last.doing} took longer than recogniser.timeout {times} times: {last.reason}"
            )
        return GivenUp("death", f"{last.doing} took the process down {times} times: {last.reason}")


def _read(path: Path) -> list[Death]:
    """Return the deaths in a file of attempts: each that came to a step."""
    deaths = []
    for attempt in path.read_bytes().split(_BEGIN)[1:]:
        lines = attempt.splitlines()
        steps = [n for n, line in enumerate(lines) if line.startswith(_STEP)]
        try:
            names, doing, thread = json.loads(lines[steps[-1]].removeprefix(_STEP))
        except (IndexError, ValueError):
            continue  # it came to no step, or the line was torn when the machine went down
        reason, timed_out = _last_words(lines[steps[-1] + 1 :], thread.encode())
        deaths.append(Death(frozenset(names), doing, reason, timed_out))
    return deaths


def _last_words(told: Sequence[bytes], thread: bytes) -> tuple[str, bool]:
    """Return why a process died, by what it wrote and where its ``thread`` was; and whether that took too long."""
    reason, timed_out = "killed, or out of memory", False
    ours = False
    for line in told:
        if line.startswith(_LOST):
            reason = line.removeprefix(_LOST).decode("utf-8", "replace")
        elif line.startswith(_FATAL):
            reason = line.removeprefix(_FATAL).decode("utf-8", "replace")
        elif line.startswith(_TIMEOUT):
            reason, timed_out = "", True
        elif frame := _FRAME.match(line):
            if ours:
                file, number, function = (part.decode("utf-8", "replace") for part in frame.groups())
                reason += f" in {function} ({os.path.basename(file)}:{number})"
                break
        else:
            ours = thread in line or line.startswith(b"Stack ")
    return reason.strip(), timed_out
