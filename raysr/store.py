"""A folder kept in an object store, S3 or another that fsspec knows, so that it outlives the hosts that write it.

Files lie there under the hash of their content, in ``objects/``; ``index.json`` says which of them make up the folder.
It comes last, in one request: whoever reads finds a folder that was whole at some time, whenever a writer died. One
process at a time may write; ``owner.json`` says which, and no index follows on one that somebody else wrote.
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
from concurrent.futures import ThreadPoolExecutor
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
        apart: have a client of its own, that nothing large of another store's is in the way of.
    """

    def __init__(self, uri: str, apart: bool = False) -> None:
        self.uri = uri.rstrip("/")
        self._files, self._root = self._open(apart)
        self._seen: dict[Path, _Seen] = {}
        self._there: set[str] | None = None  # what objects there are, once it was looked up
        self._own: set[str] | None = None  # ids of indices that ours may follow on; None: any

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
        with self._asking():
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
            self._put(self._path(INDEX), json.dumps(vars(index)).encode())
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
            with self._asking():
                try:
                    with ThreadPoolExecutor(AT_ONCE) as downloads:
                        for _ in downloads.map(lambda pair: self._fetch(*pair), wanted):
                            pass
                    return index
                except FileNotFoundError as error:
                    if self.index() == index:  # else the owner has kept two newer ones meanwhile
                        raise RunError(f"{self.uri}: {error} is missing of what {INDEX} names") from None
        raise RunError(f"{self.uri} changes faster than it can be read: try again")

    @contextmanager
    def owned(self, say: Callable[[str], None] = lambda line: None) -> Iterator["Ownership"]:
        """Be the only one to write for as long as the block runs.

        Where there is another owner this takes the time to see whether it lives, and ``say`` is told so.

        Raises:
            RunError: it does; named by its host and process.
        """
        mine = {"id": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid(), "boot": _boot()}
        with self._asking():
            self._take(mine, say)
        ownership = Ownership()
        beating = Store(self.uri, apart=True)

        def beat() -> None:
            said = time.monotonic()
            for count in itertools.count(1):
                if ownership.over.wait(BEAT_S):
                    return
                with suppress(RunError), beating._asking():
                    if beating._is_owned_by_another(mine):
                        break
                    beating._write_owner({**mine, "beat": count}, "overwrite")
                    said = time.monotonic()
                if time.monotonic() - said > STALE_S:  # whoever looks takes us for dead
                    break
            ownership.lost.set()

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
            owner = self._owner()
            if owner is None:
                if self._create(mine, contested=seen is not None):
                    return
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

    def _create(self, mine: Mapping[str, Any], contested: bool) -> bool:
        """Write ``owner.json`` where there is none; return whether it is ours then."""
        try:
            self._write_owner(mine, "create")
        except Exception:
            # stores say in many ways that it is there already, and a client that asks again hears it of itself
            if self._owner() is None:
                raise
        if contested:  # another one may have been about to take the dead one's place, too
            time.sleep(2 * LOOK_S)
        owner = self._owner()
        return owner is not None and owner["id"] == mine["id"]

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
        self._put(self._path(OWNER), json.dumps(dict(owner)).encode(), create=mode == "create")

    def _followed(self) -> Index | None:
        """Return the index that the next one follows on."""
        index = self.index()
        if index is not None and self._own is not None and index.id not in self._own:
            raise RunError(f"{self.uri}: {index.by} has written there meanwhile; this process writes no more")
        self._own = {index.id} if self._own is None and index is not None else self._own or set()
        return index

    def _objects(self) -> set[str]:
        if self._there is None:
            found = self._files.find(self._path(OBJECTS))
            self._there = {name.rpartition("/")[2] for name in found}
        return self._there

    def _clean(self, there: set[str], used: set[str]) -> None:
        """Remove objects that neither this index nor the one before names; what cannot be is left for another time."""

        def remove(content: str) -> None:
            there.discard(content)
            with suppress(Exception):
                self._files.rm_file(self._object(content))

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
            content = _sha256(path) if data is None else hashlib.sha256(data).hexdigest()
        except FileNotFoundError:
            return None
        if content not in there:
            if data is not None:
                self._put(self._object(content), data)
            else:
                self._files.put_file(str(path), self._object(content))
                if not path.exists() or _status(path) != status:
                    self._files.rm_file(self._object(content))
                    return None
            there.add(content)
        self._seen[path] = _Seen(status, content)
        return content

    def _fetch(self, path: Path, content: str) -> None:
        if not path.is_file() or _sha256(path) != content:
            with naming_full_disk(path.parent), replacing(path) as file:
                total = hashlib.sha256()
                with self._files.open(self._object(content), "rb") as source:
                    while block := source.read(1 << 20):
                        total.update(block)
                        file.write(block)
                if total.hexdigest() != content:
                    raise RunError(f"{self.uri}: the content of {path.name} is damaged there")
        self._seen[path] = _Seen(_status(path), content)

    def _put(self, path: str, data: bytes, create: bool = False) -> None:
        """Write an object in one step; with ``create`` fail where it is there."""
        if not self.uri.startswith("file:"):
            self._files.pipe_file(path, data, mode="create" if create else "overwrite")
            return
        partial = f"{path}.{uuid.uuid4().hex}.partial"
        self._files.pipe_file(partial, data)
        try:
            if create:
                os.link(partial, path)
            else:
                os.replace(partial, path)
        finally:
            Path(partial).unlink(missing_ok=True)

    def _open(self, apart: bool) -> tuple[Any, str]:
        """Return fsspec's file system and the path of the store in it."""
        options = {"auto_mkdir": True} if self.uri.startswith("file:") else {}
        try:
            files, root = fsspec.core.url_to_fs(
                self.uri, use_listings_cache=False, skip_instance_cache=apart, **options
            )
        except (ImportError, ValueError) as error:
            mend = "; install raysr[s3]" if self.uri.startswith("s3:") else ""
            raise RunError(f"{self.uri}: cannot be opened ({one_line(str(error))}){mend}") from None
        return files, root.rstrip("/")

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
    """Whether this process still owns a store.

    Attributes:
        lost: set where it was taken for dead, or has to be.
        over: set when the block ends.
    """

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
    for place, folders, names in os.walk(folder):
        folders[:] = [n for n in sorted(folders) if n[0] != "." and os.path.join(place, n) not in left_out]
        found += [
            os.path.relpath(os.path.join(place, name), folder) for name in sorted(names) if name[0] != "."
        ]
    return found


def _here() -> str:
    return f"{socket.gethostname()}, process {os.getpid()}"


def _is_dead(owner: Mapping[str, Any]) -> bool:
    """Return whether an owner was a process of this host that is gone; of other hosts nothing is known."""
    if owner["host"] != socket.gethostname() or owner.get("boot") != _boot():
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _boot() -> str:
    """Return what process numbers hold for: one start of one machine, and one name space of it."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _status(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
