"""Finding the audio files of a folder, and naming them."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from raysr.audio.suffixes import AUDIO
from raysr.corpus.importers.report import Problem
from raysr.errors import CorpusError


@dataclass(frozen=True)
class Found:
    """An audio file: its path, its path below the folder, and its id (that path without the suffix)."""

    path: Path
    name: str
    id: str


@dataclass(frozen=True)
class Scan:
    """What lies in a folder."""

    files: list[Found]
    ignored: dict[str, int]
    problems: list[Problem]


def scan(folder: Path, leave_out: tuple[Path, ...] = ()) -> Scan:
    """List the audio files below ``folder`` in a fixed order; the first of those with one id.

    Raises:
        CorpusError: there is no such folder, or no audio file in it.
    """
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "no such folder"
        raise CorpusError(f"{folder}: {problem}: give the folder that holds the audio files")
    files: dict[str, Found] = {}
    ignored: Counter[str] = Counter()
    problems: list[Problem] = []
    for path in _walk(folder, leave_out):
        if path.suffix.lower() not in AUDIO:
            ignored[path.suffix.lower() or "(none)"] += 1
            continue
        name = path.relative_to(folder).as_posix()
        if not _is_text(name):
            problems.append(Problem("not UTF-8", name, "the name is not UTF-8: rename the file"))
            continue
        found = Found(path, name, name[: -len(path.suffix)])
        first = files.setdefault(found.id, found)
        if first is not found:
            reason = f"has the id '{found.id}' like {first.name}: rename one of them"
            problems.append(Problem("duplicate id", name, reason))
    if not files:
        held = ", ".join(f"{count} {suffix}" for suffix, count in ignored.most_common(3)) or "nothing"
        raise CorpusError(f"{folder}: no audio file in it (it holds {held}): give a folder of .wav, .mp3, …")
    return Scan(list(files.values()), dict(ignored), problems)


def _walk(folder: Path, leave_out: tuple[Path, ...]) -> Iterator[Path]:
    avoid = {os.path.realpath(path) for path in leave_out}
    for base, folders, names in os.walk(folder):
        inside = [f for f in folders if not f.startswith(".") and _real(base, f) not in avoid]
        folders[:] = sorted(inside)
        for name in sorted(names):
            if not name.startswith(".") and _real(base, name) not in avoid:
                yield Path(base) / name


def _real(base: str, name: str) -> str:
    return os.path.realpath(os.path.join(base, name))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
