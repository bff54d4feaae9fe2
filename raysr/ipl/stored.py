"""A run's folder kept in an object store as well: a host that is lost costs no finished step.

What a step has finished is kept when it ends. In the middle of a step labelled blocks and checkpoints of the training
are kept every few minutes: each of them is whole by itself. Features are not; they are computed again.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from raysr.corpus.disk import replacing
from raysr.errors import RaysrError, RunError
from raysr.store import Index, Ownership, Store, files_in

KNOWN = ".store.json"
"""In a run's folder: the last state of it that the store holds, and one that it may hold."""
WITHOUT = ("features",)
BY_THEMSELVES = (["predictions"], ["train"])
"""Folders of a cycle, ``cycles/NNN/…``, in which every file, or checkpoint, says itself whether it is whole."""
EVERY_S = 300.0


class Stored:
    """A run's folder and its store, which this process owns."""

    def __init__(self, store: Store, folder: Path, ownership: Ownership, say: Callable[[str], None]) -> None:
        self._store, self._folder, self._ownership, self._say = store, folder, ownership, say
        self._kept: Index | None = None
        self._behind = False

    def begin(self) -> None:
        """Bring what is kept to a folder that is new.

        Raises:
            RunError: the folder holds an older state of the run than the store, or another run.
        """
        there = self._store.index()
        if there is None or there.id in self._known():
            self._kept = there
            return
        if files_in(self._folder, WITHOUT):
            raise RunError(
                f"run folder {self._folder} is not what {self._store.uri} keeps, which {there.by} wrote last: move the "
                "folder away, and what is kept will be fetched"
            )
        self._say(f"fetching the run from {self._store.uri}")
        self._kept = self._store.fetch(self._folder)
        if self._kept is not None:
            self._note(self._kept.id)

    def keep(self) -> None:
        """Keep the folder as it is, at the end of a step.

        Where the store does not answer that is said, and made up for the next time.

        Raises:
            RunError: another process has taken the run over.
        """
        self._try(files_in(self._folder, WITHOUT), {})

    def keep_parts(self) -> None:
        """Keep what a step that is not finished has made so far."""
        parts = [name for name in files_in(self._folder, WITHOUT) if name.split("/")[2:3] in BY_THEMSELVES]
        self._try(parts, dict(self._kept.files) if self._kept else {})

    def end(self) -> None:
        """Keep the folder for the last time; raise :class:`RunError` where the store still does not answer."""
        self.keep()
        if self._behind:
            raise RunError(
                f"{self._store.uri} does not hold the run's last state: start it again when it answers"
            )

    def _try(self, names: Iterable[str], other: Mapping[str, str]) -> None:
        if self._ownership.lost.is_set():
            raise RunError(
                f"{self._store.uri}: this run was taken for dead, and another process goes on with it"
            )
        try:
            self._kept = self._store.keep(self._folder, names, other, self._about_to)
        except RunError as error:
            if not self._behind:
                self._say(f"  cannot keep the run: {error}; it goes on, and is kept when that answers")
            self._behind = True
            return
        self._behind = False

    def _about_to(self, index: Index) -> None:
        """Note what the store is about to hold: a process that dies right after it has to know it again."""
        self._note(*([self._kept.id] if self._kept else []), index.id)

    def _known(self) -> list[str]:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return list(json.loads((self._folder / KNOWN).read_text())["ids"])
        return []

    def _note(self, *ids: str) -> None:
        with replacing(self._folder / KNOWN) as file:
            file.write(json.dumps({"store": self._store.uri, "ids": ids}).encode())


@contextmanager
def stored(uri: str | None, folder: Path, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Keep a run's folder in a store for as long as the block runs; yield what keeps it at the end of a step.

    However the block ends, its last state is kept too. Without a store nothing is done.

    Raises:
        RunError: another process works on the run, or the folder does not belong to it.
    """
    if uri is None:
        yield lambda: None
        return
    store, over = Store(uri), threading.Event()
    with store.owned(say) as ownership:
        kept = Stored(store, folder, ownership, say)
        kept.begin()
        turn = threading.Lock()

        def keep() -> None:
            with turn:
                kept.keep()

        def beat() -> None:
            while not over.wait(EVERY_S):
                with turn, suppress(RaysrError):
                    kept.keep_parts()

        thread = threading.Thread(target=beat, name="raysr-store", daemon=True)
        thread.start()
        try:
            yield keep
        except BaseException:
            over.set()
            thread.join()
            with suppress(RaysrError):
                kept.keep()
            raise
        over.set()
        thread.join()
        kept.end()


def finished_cycles(folder: Path, uri: str | None) -> int:
    """Return how many cycles a run has finished, by its store where its folder is not here."""
    names = files_in(folder, WITHOUT)
    if not names and uri is not None:
        index = Store(uri).index()
        names = list(index.files) if index else []
    return sum(PurePosixPath(name).match("cycles/*/report.json") for name in names)
