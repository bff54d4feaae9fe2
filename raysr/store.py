"""A folder kept in an object store, S3 or another that fsspec knows, so that it outlives the hosts that write it.

Files lie there under the hash of their content, in ``objects/``; ``index.json`` says which of them make up the folder.
It comes last, in one request: whoever reads finds a folder that was whole at some time, whenever a writer died. One
process at a time may write; ``owner.json`` says which.
"""

import hashlib
import itertools
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from raysr.corpus.disk import naming_full_disk, replacing
from raysr.errors import RaysrError, RunError, one_line

INDEX, OWNER, OBJECTS = "index.json", "owner.json", "objects"
IN_MEMORY = 32 << 20
"""A file of no more bytes is read once, and what was read is what is written."""
BEAT_S, STALE_S, LOOK_S = 20.0, 90.0, 1.0
"""An owner says every so often that it lives, and is taken for dead after so long; a second one looks so often."""
FETCHES = 3


@dataclass(frozen=True)
class Index:
    """What a folder held when it was kept.

    Attributes:
        number: of the times it was kept, from 1.
        files: path within the folder → SHA-256 of the content.
        by: host and process that wrote it.
        id: of this index and no other.
    """

    number: int
    files: Mapping[str, str]
    by: str
    id: str


@dataclass
class _Seen:
    """A file that was kept: its size and time of change, and the hash of what it held."""

    status: tuple[int, int]
    content: str


class Store:
    """A place for one folder; every method raises :class:`RunError`, which names it, where it does not answer.

    Args:
        uri: such as ``s3://bucket/runs/mine``; credentials and endpoints are those that fsspec's implementation finds,
            for S3 ``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL`` and the like.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        try:
            folders = {"auto_mkdir": True} if self.uri.startswith("file:") else {}
            self._files, root = fsspec.core.url_to_fs(self.uri, use_listings_cache=False, **folders)
        except (ImportError, ValueError) as error:
            raise RunError(f"{self.uri}: cannot be opened ({error}); for s3:// install raysr[s3]") from None
        self._root = root.rstrip("/")
        self._seen: dict[Path, _Seen] = {}
        self._there: set[str] | None = None  # what objects there are, once it was looked up
        self._lock = threading.Lock()

    def index(self) -> Index | None:
        """Return what is kept; None: nothing yet."""
        with self._asking():
            try:
                told = json.loads(self._files.cat_file(self._path(INDEX)))
                index = Index(told["number"], told["files"], told["by"], told["id"])
            except FileNotFoundError:
                return None
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(f"{self.uri}/{INDEX} is damaged: {error!r}") from None
        for name in index.files:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise RunError(f"{self.uri}/{INDEX} is damaged: {name} is no path within a folder")
        return index

    def keep(
        self,
        folder: Path,
        names: Iterable[str],
        other: Mapping[str, str] | None = None,
        about_to: Callable[[Index], None] = lambda index: None,
    ) -> Index:
        """Keep files of a folder as they are now, and no others.

        Args:
            folder: whose files.
            names: paths within it; one that is gone by now is left out.
            other: path → hash of files that stay as they were kept before.
            about_to: told the index just before it holds.
        """
        with self._lock, self._asking():
            before = self.index()
            if self._there is None:
                self._there = {name.rpartition("/")[2] for name in self._files.find(self._path(OBJECTS))}
            files = dict(other or {})
            for name in names:
                if (content := self._kept(folder / name, self._there)) is not None:
                    files[name] = content
            index = Index(1 + (before.number if before else 0), files, _here(), uuid.uuid4().hex)
            about_to(index)
            self._files.pipe_file(self._path(INDEX), json.dumps(vars(index)).encode())
            used = set(files.values())
            for content in self._there - used:  # a writer that died may have left some, too
                with suppress(FileNotFoundError):
                    self._files.rm_file(self._object(content))
            self._there &= used
            return index

    def fetch(self, folder: Path, below: str = "") -> Index | None:
        """Bring what is kept to a folder, where files of other content are replaced and others stay.

        Args:
            folder: on this host; it is made if need be.
            below: only paths that begin like this.

        Raises:
            RunError: an object is missing or damaged.
            CorpusError: the disk is full.
        """
        for _ in range(FETCHES):
            index = self.index()
            if index is None:
                return None
            with self._asking():
                try:
                    for name, content in index.files.items():
                        if name.startswith(below):
                            self._fetch(folder / name, content)
                    return index
                except FileNotFoundError as error:
                    if self.index() == index:  # else the owner has kept a newer one meanwhile
                        raise RunError(f"{self.uri}: {error} is missing of what {INDEX} names") from None
        raise RunError(f"{self.uri} changes faster than it can be read: try again")

    @contextmanager
    def owned(self, say: Callable[[str], None] = lambda line: None) -> Iterator["Ownership"]:
        """Be the only one to write for as long as the block runs.

        Where there is another owner this takes the time to see whether it lives, and ``say`` is told so.

        Raises:
            RunError: it does; named by its host and process.
        """
        mine = {"id": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid()}
        with self._asking():
            self._take(mine, say)
        ownership = Ownership()

        def beat() -> None:
            for count in itertools.count(1):
                if ownership.over.wait(BEAT_S):
                    return
                with suppress(RunError), self._asking():
                    if self._is_owned_by_another(mine):
                        ownership.lost.set()
                        return
                    self._write_owner({**mine, "beat": count}, "overwrite")

        thread = threading.Thread(target=beat, name="raysr-store-owner", daemon=True)
        thread.start()
        try:
            yield ownership
        finally:
            ownership.over.set()
            thread.join()
            with suppress(RunError), self._asking():
                if not self._is_owned_by_another(mine):
                    self._files.rm_file(self._path(OWNER))

    def _take(self, mine: Mapping[str, Any], say: Callable[[str], None]) -> None:
        """Become the owner, if need be once the one there was has said nothing for long enough."""
        seen: dict[str, Any] | None = None
        patience = time.monotonic()
        while True:
            with suppress(FileExistsError):
                self._write_owner(mine, "create")
                if seen is None:
                    return
                time.sleep(2 * LOOK_S)  # another one may have been about to take the dead one's place, too
                if self._owner() == mine:
                    return
            owner = self._owner()
            if owner is None:
                continue
            by = f"{owner['host']}, process {owner['pid']}"
            if seen is not None and owner["id"] == seen["id"] and owner != seen:
                raise RunError(f"{self.uri} is in use by {by}: wait for it, or stop it")
            if seen is None or owner["id"] != seen["id"]:
                seen, patience = owner, time.monotonic() + STALE_S
                if not _is_dead(owner):
                    say(f"seeing whether {by}, which has {self.uri}, still lives")
            if _is_dead(owner) or time.monotonic() > patience:
                with suppress(FileNotFoundError):
                    self._files.rm_file(self._path(OWNER))
            else:
                time.sleep(LOOK_S)

    def _owner(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self._files.cat_file(self._path(OWNER)))
            return found
        except FileNotFoundError:
            return None

    def _is_owned_by_another(self, mine: Mapping[str, Any]) -> bool:
        owner = self._owner()
        return owner is not None and owner["id"] != mine["id"]

    def _write_owner(self, owner: Mapping[str, Any], mode: str) -> None:
        self._files.pipe_file(self._path(OWNER), json.dumps(dict(owner)).encode(), mode=mode)

    def _kept(self, path: Path, there: set[str]) -> str | None:
        """Write a file's content unless it is there; return its hash, None if the file is gone or still grows."""
        try:
            status = _status(path)
            seen = self._seen.get(path)
            if seen and seen.status == status and seen.content in there:
                return seen.content
            data = path.read_bytes() if status[0] <= IN_MEMORY else None
            content = _sha256(path) if data is None else hashlib.sha256(data).hexdigest()
        except FileNotFoundError:
            return None
        if content not in there:
            if data is not None:
                self._files.pipe_file(self._object(content), data)
            else:
                self._files.put_file(str(path), self._object(content))
                if not path.exists() or _status(path) != status:
                    return None
            there.add(content)
        self._seen[path] = _Seen(status, content)
        return content

    def _fetch(self, path: Path, content: str) -> None:
        if path.is_file() and _sha256(path) == content:
            return
        with naming_full_disk(path.parent), replacing(path) as file:
            total = hashlib.sha256()
            with self._files.open(self._object(content), "rb") as source:
                while block := source.read(1 << 20):
                    total.update(block)
                    file.write(block)
            if total.hexdigest() != content:
                raise RunError(f"{self.uri}: the content of {path.name} is damaged there")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _object(self, content: str) -> str:
        return self._path(f"{OBJECTS}/{content[:2]}/{content}")

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Tell what the store's client raises in one line."""
        try:
            yield
        except RaysrError:
            raise
        except Exception as error:
            # clients have errors of their own, and not all of them are OSErrors
            raise RunError(f"{self.uri}: {type(error).__name__}: {one_line(str(error))}") from error


@dataclass
class Ownership:
    """Whether this process still owns a store: ``lost`` is set where it was taken for dead and another began."""

    lost: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)


def files_in(folder: Path, without: Iterable[str] = ()) -> list[str]:
    """Return the files of a folder and of those in it, as paths within it; hidden ones are left out.

    Args:
        folder: to look in.
        without: folders that are left out, as paths within it.
    """
    found: list[str] = []
    left_out = {str(folder / name) for name in without}
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [n for n in sorted(folders) if n[0] != "." and os.path.join(place, n) not in left_out]
        found += [
            os.path.relpath(os.path.join(place, name), folder) for name in sorted(names) if name[0] != "."
        ]
    return found


def _here() -> str:
    return f"{socket.gethostname()}, process {os.getpid()}"


def _is_dead(owner: Mapping[str, Any]) -> bool:
    """Return whether an owner was a process of this host that is gone; of other hosts nothing is known."""
    if owner["host"] != socket.gethostname():
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _status(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
