"""A folder kept in an object store, S3 or another that fsspec knows, so that it outlives the hosts that write it.

Files lie there under the hash of their content, in ``objects/``; ``index.json`` says which of them make up the folder.
It comes last, in one request: whoever reads finds a folder that was whole at some time, whenever a writer died. No
index follows on one that somebody else wrote; :mod:`raysr.store.owner` says who may write.
"""

import hashlib
import json
import os
import socket
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from raysr.corpus.disk import naming_full_disk, replacing
from raysr.errors import RunError
from raysr.store.objects import Objects

INDEX, OBJECTS = "index.json", "objects"
IN_MEMORY = 32 << 20
"""A file of no more bytes is read once, and what was read is what is written."""
FETCHES = 3
AT_ONCE = 16
"""Files on their way at the same time."""


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
        self.objects = Objects(uri)
        self.uri = self.objects.uri
        self._seen: dict[Path, _Seen] = {}
        self._there: set[str] | None = None  # what objects there are, once it was looked up
        self._own: set[str] | None = None  # ids of indices that ours may follow on; None: any

    def index(self) -> Index | None:
        """Return what is kept; None: nothing yet."""
        with self.objects.asking():
            try:
                told = json.loads(self.objects.read(INDEX))
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
        together: Callable[[str], str | None] = lambda name: None,
        about_to: Callable[[Index], None] = lambda index: None,
    ) -> Index:
        """Keep files of a folder as they are now, and no others. For one thread at a time.

        Args:
            folder: whose files.
            names: paths within it; one that is gone by now is left out.
            other: path → hash of files that stay as they were kept before.
            together: names a group of files that are kept all or none, as one may be gone by now.
            about_to: told the index just before it holds.

        Raises:
            RunError: another process has written meanwhile.
        """
        with self.objects.asking():
            before = self._followed()
            there = self._objects()
            files = {name: content for name, content in (other or {}).items() if content in there}
            listed = list(names)
            with ThreadPoolExecutor(AT_ONCE) as uploads:
                contents = list(uploads.map(lambda name: self._kept(folder / name, there), listed))
            torn = {together(name) for name, content in zip(listed, contents, strict=True) if content is None}
            for name, content in zip(listed, contents, strict=True):
                if content is not None and (together(name) is None or together(name) not in torn):
                    files[name] = content
            index = Index(1 + (before.number if before else 0), files, _here(), uuid.uuid4().hex)
            about_to(index)
            now = self._followed()
            self._own = {index.id, *([now.id] if now else [])}
            self.objects.write(INDEX, json.dumps(vars(index)).encode())
            self._clean(there, {*files.values(), *(before.files.values() if before else ())})
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
            wanted = [
                (folder / name, content) for name, content in index.files.items() if name.startswith(below)
            ]
            with self.objects.asking():
                try:
                    with ThreadPoolExecutor(AT_ONCE) as downloads:
                        for _ in downloads.map(lambda pair: self._fetch(*pair), wanted):
                            pass
                    return index
                except FileNotFoundError as error:
                    if self.index() == index:  # else the owner has kept two newer ones meanwhile
                        raise RunError(f"{self.uri}: {error} is missing of what {INDEX} names") from None
        raise RunError(f"{self.uri} changes faster than it can be read: try again")

    def _followed(self) -> Index | None:
        """Return the index that the next one follows on."""
        index = self.index()
        if index is not None and self._own is not None and index.id not in self._own:
            raise RunError(f"{self.uri}: {index.by} has written there meanwhile; this process writes no more")
        self._own = {index.id} if self._own is None and index is not None else self._own or set()
        return index

    def _objects(self) -> set[str]:
        if self._there is None:
            self._there = set(self.objects.names(OBJECTS))
        return self._there

    def _clean(self, there: set[str], used: set[str]) -> None:
        """Remove objects that neither this index nor the one before names; what cannot be is left for another time."""

        def remove(content: str) -> None:
            there.discard(content)
            with suppress(Exception):
                self.objects.remove(_object(content))

        with ThreadPoolExecutor(AT_ONCE) as removals:
            list(removals.map(remove, there - used))

    def _kept(self, path: Path, there: set[str]) -> str | None:
        """Write a file's content unless it is there; return its hash, None if the file is gone or still grows."""
        try:
            status = _status(path)
            seen = self._seen.get(path)
            if seen and seen.status == status and seen.content in there:
                return seen.content
            data = path.read_bytes() if status[0] <= IN_MEMORY else None
            content = sha256_of(path) if data is None else hashlib.sha256(data).hexdigest()
        except FileNotFoundError:
            return None
        if content not in there:
            if data is not None:
                self.objects.write(_object(content), data)
            else:
                self.objects.upload(path, _object(content))
                if not path.exists() or _status(path) != status:
                    self.objects.remove(_object(content))
                    return None
            there.add(content)
        self._seen[path] = _Seen(status, content)
        return content

    def _fetch(self, path: Path, content: str) -> None:
        if not path.is_file() or sha256_of(path) != content:
            with naming_full_disk(path.parent), replacing(path) as file:
                total = hashlib.sha256()
                with self.objects.open(_object(content)) as source:
                    while block := source.read(1 << 20):
                        total.update(block)
                        file.write(block)
                if total.hexdigest() != content:
                    raise RunError(f"{self.uri}: the content of {path.name} is damaged there")
        self._seen[path] = _Seen(_status(path), content)


def files_in(folder: Path, without: Iterable[str] = ()) -> list[str]:
    """Return the files of a folder and of those in it, as paths within it; hidden ones are left out.

    Args:
        folder: to look in.
        without: folders that are left out, as paths within it.
    """
    found: list[str] = []
    left_out = {str(folder / name) for name in without}
    for place, folders, names in os.walk(folder):
        folders[:] = [n for n in sorted(folders) if n[0] != "." and os.path.join(place, n) not in left_out]
        found += [
            os.path.relpath(os.path.join(place, name), folder) for name in sorted(names) if name[0] != "."
        ]
    return found


def _here() -> str:
    return f"{socket.gethostname()}, process {os.getpid()}"


def _object(content: str) -> str:
    return f"{OBJECTS}/{content[:2]}/{content}"


def _status(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def sha256_of(path: Path) -> str:
    """Return what a file is known by."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
