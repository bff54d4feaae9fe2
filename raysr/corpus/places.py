"""Reading from where a corpus lies: a local path, or a URI of any store that fsspec knows (``s3://…``, ``gs://…``)."""

import os
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from raysr.errors import CorpusError


def is_uri(place: str) -> bool:
    return "://" in place


def absolute(place: str | Path, base: str | Path = "") -> str:
    """Return ``place`` as an absolute path or a URI; a relative one is taken from the folder ``base``."""
    place, base = str(place), str(base)
    if is_uri(place):
        return place
    if is_uri(base):
        return place if os.path.isabs(place) else f"{base.rstrip('/')}/{place}"
    return os.path.abspath(os.path.join(base, os.path.expanduser(place)))


def parent(place: str) -> str:
    return place.rpartition("/")[0] if is_uri(place) else os.path.dirname(place)


def open_binary(place: str) -> BinaryIO:
    """Open a file for reading; raise :class:`CorpusError` naming it when it cannot be opened."""
    try:
        if is_uri(place):
            return cast(BinaryIO, fsspec.open(place, "rb").open())
        return open(place, "rb")
    except FileNotFoundError as error:  # of HTTP also when nobody answers; its cause says so
        raise CorpusError(f"{place}: no such file") from error
    except (OSError, ImportError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CorpusError(f"{place}: cannot be opened ({reason})") from error


def is_folder(place: str) -> bool:
    return _filesystem(place).isdir(place) if is_uri(place) else os.path.isdir(place)


def children(folder: str, suffix: str) -> list[str]:
    """Return the files of ``folder`` that end in ``suffix``, sorted; hidden ones are left out."""
    if not is_uri(folder):
        names = [n for n in os.listdir(folder) if n.endswith(suffix) and not n.startswith(".")]
        return [os.path.join(folder, name) for name in sorted(names)]
    filesystem = _filesystem(folder)
    found = [filesystem.unstrip_protocol(name) for name in filesystem.ls(folder, detail=False)]
    return sorted(f for f in found if f.endswith(suffix) and not f.rpartition("/")[2].startswith("."))


def version(place: str) -> tuple[int, int]:
    """Return what changes when a local file is rewritten: its size and time of change; (-1, 0) for a URI."""
    if is_uri(place):
        return -1, 0
    try:
        status = os.stat(place)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CorpusError(f"{place}: {reason.lower()}") from error
    return status.st_size, status.st_mtime_ns


def _filesystem(place: str) -> Any:
    try:
        return fsspec.core.url_to_fs(place)[0]
    except (ImportError, ValueError) as error:
        raise CorpusError(f"{place}: cannot be opened ({error})") from None
