"""Which audio file a name in a list of transcripts means."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from raysr.audio.suffixes import AUDIO
from raysr.corpus.importers.scan import Found

_AFTER_SLASH = chr(ord("/") + 1)


@dataclass(frozen=True)
class Unassigned:
    """A name that got no file.

    Attributes:
        fits: the files it may mean: none, several, or such as other names have already.
        owner: place in the list of the name that has the first of ``fits``; None when that file is free.
    """

    fits: list[Found]
    owner: int | None = None


def assign(files: Sequence[Found], names: Sequence[str]) -> list[Found | Unassigned]:
    """Return for each name the file that it means: no file twice, and none by guessing.

    A name is a file's path below the folder, with the suffix or without. Else it is the end of one file's
    full path: ``digits/1`` means ``/sounds/en/digits/1.g722``, and so does ``en/digits/1``. Of several names
    for one file the path below the folder goes first, then the one of most parts, then the earliest; what
    they have is no candidate for the others, so that ``sorry`` means ``en/sorry`` when ``followme/sorry``
    has ``en/followme/sorry``. Takes O(n log n) for n files and names, when names are not ambiguous.
    """
    index = _Index(files)
    keys = [_path(name) for name in names]
    below = [index.below(key) for key in keys]
    order = sorted(range(len(keys)), key=lambda n: (not below[n], -keys[n].count("/")))
    owners: dict[int, int] = {}
    outcomes: list[Found | Unassigned] = [Unassigned([])] * len(keys)
    for n in order:
        fits = below[n] or index.ending(keys[n])
        free = [number for number in fits if number not in owners]
        if len(free) == 1:
            owners[free[0]] = n
            outcomes[n] = files[free[0]]
        else:
            left = free or fits
            outcomes[n] = Unassigned([files[f] for f in left], owners.get(left[0]) if left else None)
    return outcomes


class _Index:
    """The files by path, with the suffix (a name) and without it (an id)."""

    def __init__(self, files: Sequence[Found]) -> None:
        self._names = {file.name: number for number, file in enumerate(files)}
        self._ids = {file.id: number for number, file in enumerate(files)}
        paths = [file.path.as_posix() for file in files]
        self._name_ends = _Ends(paths)
        self._id_ends = _Ends(
            [path[: -len(file.path.suffix)] for file, path in zip(files, paths, strict=True)]
        )

    def below(self, key: str) -> list[int]:
        """Return the files whose path below the folder is ``key``."""
        if key in self._names:
            return [self._names[key]]
        return sorted(self._ids[stem] for stem in _stems(key) if stem in self._ids)

    def ending(self, key: str) -> list[int]:
        """Return the files whose full path ends with the parts of ``key``."""
        found = self._name_ends.find(key)
        return found or sorted({number for stem in _stems(key) for number in self._id_ends.find(stem)})


class _Ends:
    """Paths, turned round and sorted: those that end alike lie together."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._turned = sorted((f"/{path}"[::-1], number) for number, path in enumerate(paths))

    def find(self, end: str) -> list[int]:
        turned = end[::-1]
        first = bisect_left(self._turned, (turned + "/",))
        last = bisect_left(self._turned, (turned + _AFTER_SLASH,))
        return sorted(number for _, number in self._turned[first:last])


def _path(name: str) -> str:
    return str(PurePosixPath(name.replace("\\", "/"))).lstrip("/")


def _stems(key: str) -> set[str]:
    """Return what may be an id in ``key``: a last dot begins a suffix, or belongs to the name."""
    suffix = PurePosixPath(key).suffix
    return {key, key[: -len(suffix)]} if suffix.lower() in AUDIO else {key}
