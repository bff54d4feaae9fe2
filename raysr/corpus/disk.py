"""Files that a crash, a full disk or a second process can never leave half written where they are read."""

import errno
import fcntl
import json
import os
import re
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from raysr.errors import CorpusError, RaysrError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LITTLE = 1 << 16
_PARTIAL = ".partial"


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears as ``path``, whole and synced, when the block ends; if it fails, nothing does.

    Raises:
        CorpusError: the disk is full or the folder cannot be written; names the folder.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{_PARTIAL}")
    try:
        with naming_folder(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            sync(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a line of JSON by a single write, so that lines of several processes do not mix.

    Raises:
        CorpusError: the disk is full or the folder cannot be written; names the folder.
    """
    with naming_folder(path.parent), path.open("ab", buffering=0) as file:
        file.write(json.dumps(row).encode() + b"\n")


@contextmanager
def naming_folder(folder: Path) -> Iterator[None]:
    """Turn what keeps a file from being written into a :class:`CorpusError` that names ``folder``."""
    try:
        with naming_full_disk(folder):
            yield
    except OSError as error:
        if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}:
            raise CorpusError(f"cannot write to {folder}: {os.strerror(error.errno)}") from None
        raise


@contextmanager
def naming_full_disk(folder: Path) -> Iterator[None]:
    """Turn what a full disk does to the block into a :class:`CorpusError` that names ``folder``."""
    try:
        yield
    except Exception as error:
        if not _is_of_full_disk(error, folder):
            raise
        raise CorpusError(
            f"disk full while writing to {folder}: free some space and run again; "
            "what is finished there is kept"
        ) from error


def _is_of_full_disk(error: Exception, folder: Path) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    if isinstance(error, CorpusError) or (isinstance(error, RaysrError) and error.__cause__ is None):
        return False  # it says what is wrong
    code = re.search(r"\(os error (\d+)\)", str(error))  # as Rust says it; C++ keeps it to itself
    return int(code[1]) in _FULL if code else _is_full(folder)


def _is_full(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_LITTLE))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return error.errno in _FULL
    return False


@contextmanager
def exclusive(folder: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of ``folder``; the system frees it when the holder dies, however that happens.

    Raises:
        CorpusError: another process holds it and ``wait`` is false.
    """
    with naming_folder(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("ab")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise CorpusError(f"another process is writing to {folder}: wait for it, or stop it") from None
        yield


def remove_partials(folder: Path) -> None:
    """Remove what writers that died left in ``folder``; only for who holds its lock."""
    for partial in folder.glob(f".*{_PARTIAL}"):
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
