"""A run's folder kept in an object store as well: a host that is lost costs no finished step.

What a step has finished is kept when it ends. In the middle of a step labelled blocks and whole checkpoints of the
training are kept every few minutes. Features are not; they are computed again.
"""

import _thread
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from raysr.corpus.disk import replacing
from raysr.errors import RaysrError, RunError
from raysr.store.folder import Index, Store, files_in, sha256_of
from raysr.store.owner import Ownership, owned
from raysr.train.checkpoint import is_whole

KNOWN = ".store.json"
"""In a run's folder: states of it that the store holds, or may hold, and whether it is being fetched."""
WITHOUT = ("features",)
BY_THEMSELVES = ("predictions", "train")
"""Folders of a cycle, ``cycles/NNN/…``, in which each file, or checkpoint, means something without the others."""
CHECKPOINT = "checkpoint-"
EVERY_S = 300.0


class Stored:
    """A run's folder and its store, which this process owns. For one thread at a time."""

    def __init__(self, store: Store, folder: Path, ownership: Ownership, say: Callable[[str], None]) -> None:
        self._store, self._folder, self._ownership, self._say = store, folder, ownership, say
        self._kept: Index | None = None
        self._ids: list[str] = []
        self._due: list[str] = []  # what a step has finished and the store does not have yet

    def begin(self) -> None:
        """Bring what is kept to a folder that is new; keep a folder that is ahead of the store.

        Raises:
            RunError: the folder holds another state of the run than the store, or another run.
        """
        there, (known, fetching) = self._store.index(), self._known()
        if fetching:
            for path in self._folder.glob("[!.]*"):
                if path.name not in WITHOUT:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        here = files_in(self._folder, WITHOUT)
        if there is not None and not here:
            self._say(f"fetching the run from {self._store.uri}")
            self._note(fetching=True)
            self._kept = self._store.fetch(self._folder)
            self._ids = [self._kept.id] if self._kept else []
            self._note()
            return
        if there is not None and there.id not in known and not self._is_copy(there, here):
            raise RunError(
                f"run folder {self._folder} is not what {self._store.uri} keeps, which {there.by} wrote last: move "
                "the folder away, and what is kept will be fetched"
            )
        self._kept = there
        self._ids = [there.id] if there else []
        if here:
            self.keep()

    def keep(self) -> None:
        """Keep the folder as it is, at the end of a step.

        Where the store does not answer that is said, and made up for later.

        Raises:
            RunError: another process has taken the run over.
        """
        self._due = self._names()
        self._try({})

    def keep_parts(self) -> None:
        """Keep what a step that is not finished has made so far."""
        parts = [name for name in self._names() if _stands_alone(name)]
        others = self._kept.files if self._kept else {}
        self._try({name: content for name, content in others.items() if not _stands_alone(name)}, parts)

    def end(self) -> None:
        """Keep the folder for the last time; raise :class:`RunError` where the store still does not answer."""
        self.keep()
        if self._due:
            raise RunError(
                f"{self._store.uri} does not hold the run's last state: start it again when it answers"
            )

    def _try(self, other: dict[str, str], parts: list[str] | None = None) -> None:
        if self._ownership.lost.is_set():
            raise RunError(
                f"{self._store.uri}: this run was taken for dead, and another process may go on with it"
            )
        names = list(dict.fromkeys([*self._due, *(parts or [])]))
        try:
            self._kept = self._store.keep(self._folder, names, other, _checkpoint, self._about_to)
        except RunError as error:
            if self._ownership.lost.is_set():
                raise
            self._say(f"  cannot keep the run: {error}; that is tried again")
            return
        self._ids = [self._kept.id]
        self._note()
        self._due = []

    def _names(self) -> list[str]:
        """Return what there is to keep: of checkpoints the whole ones, and none of a cycle that is done."""
        found, whole = [], dict[str, bool]()
        for name in files_in(self._folder, WITHOUT):
            checkpoint = _checkpoint(name)
            if checkpoint is not None:
                if checkpoint not in whole:
                    done = self._folder.joinpath(*PurePosixPath(name).parts[:2], "report.json").exists()
                    whole[checkpoint] = not done and is_whole(self._folder / checkpoint)
                if not whole[checkpoint]:
                    continue
            found.append(name)
        return found

    def _is_copy(self, index: Index, here: list[str]) -> bool:
        """Return whether a folder holds what is kept and nothing else, as one that was copied does."""
        if set(here) != set(index.files):
            return False
        return all(sha256_of(self._folder / name) == content for name, content in index.files.items())

    def _about_to(self, index: Index) -> None:
        """Note what the store is about to hold: a process that dies right after it has to know it again."""
        self._ids.append(index.id)
        self._note()

    def _known(self) -> tuple[list[str], bool]:
        """Return the states that the folder is of, and whether it was being fetched."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads((self._folder / KNOWN).read_text())
            return list(found["ids"]), bool(found["fetching"])
        return [], False

    def _note(self, fetching: bool = False) -> None:
        with replacing(self._folder / KNOWN) as file:
            file.write(json.dumps({"ids": self._ids, "fetching": fetching}).encode())


@contextmanager
def stored(uri: str | None, folder: Path, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Keep a run's folder in a store for as long as the block runs; yield what keeps it at the end of a step.

    However the block ends, its last state is kept too; where another process takes the run over, this one is
    interrupted. Without a store nothing is done.

    Raises:
        RunError: another process works on the run, or the folder does not belong to it.
    """
    if uri is None:
        yield lambda: None
        return
    store, over, turn = Store(uri), threading.Event(), threading.Lock()
    with owned(uri, say) as ownership:
        kept = Stored(store, folder, ownership, say)
        kept.begin()

        def keep() -> None:
            with turn:
                kept.keep()

        def beat() -> None:
            while not over.wait(EVERY_S):
                with turn, suppress(RaysrError):
                    kept.keep_parts()

        def watch() -> None:
            while not over.is_set():
                if ownership.lost.wait(1.0):
                    say(
                        f"{uri}: this run was taken for dead, and another process may go on with it: stopping"
                    )
                    _thread.interrupt_main()
                    return

        threads = [
            threading.Thread(target=target, name="raysr-store", daemon=True) for target in (beat, watch)
        ]
        for thread in threads:
            thread.start()
        try:
            yield keep
        except BaseException:
            _end(over, threads)
            with suppress(RaysrError):
                kept.keep()
            raise
        _end(over, threads)
        kept.end()


def finished_cycles(folder: Path, uri: str | None) -> int:
    """Return how many cycles a run has finished, by its store where its folder is not here."""
    names = files_in(folder, WITHOUT)
    if not names and uri is not None:
        index = Store(uri).index()
        names = list(index.files) if index else []
    return sum(PurePosixPath(name).match("cycles/*/report.json") for name in names)


def _stands_alone(name: str) -> bool:
    """Return whether a file of a run means something before its step has ended."""
    return any(part in BY_THEMSELVES for part in PurePosixPath(name).parts[2:3])


def _checkpoint(name: str) -> str | None:
    """Return the folder of the checkpoint that a file belongs to, None if it belongs to none."""
    folders = [folder for folder in PurePosixPath(name).parents if folder.name.startswith(CHECKPOINT)]
    return str(folders[-1]) if folders else None


def _end(over: threading.Event, threads: list[threading.Thread]) -> None:
    over.set()
    for thread in threads:
        thread.join()
