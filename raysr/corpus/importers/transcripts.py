"""Reading transcripts in the forms people keep them in.

One file for all: tab-separated (``name<TAB>text``, or any columns under a header that names them), JSONL
(``{"audio_filepath" | "id" | "file" | "name": …, "text": …}``), or lines ``name: text`` with ``;`` before
comments. Or a ``.txt`` beside each audio file. :mod:`raysr.corpus.importers.names` says what a name means.

Square and angle brackets hold stage directions, which nobody says: ``[laughs]``, ``<beep>``, ``at [@]``. Round
ones do only where nothing stands outside them: ``(silence)``, but not ``press 1 (one)``.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from raysr.corpus.importers.names import assign
from raysr.corpus.importers.report import Problem
from raysr.corpus.importers.scan import Found
from raysr.errors import CorpusError
from raysr.text.normalise import normalise

_NAME_COLUMNS = ("path", "audio_filepath", "file", "filename", "audio", "name", "id")
_TEXT_COLUMNS = ("text", "transcript", "transcription", "sentence")
_DIRECTION = re.compile(r"\[[^\[\]]*\]|<[^<>]*>")
_ASIDE = re.compile(r"\([^()]*\)")
_CANDIDATES = 5


@dataclass(frozen=True)
class Transcript:
    """A text as it was written, and where it stands."""

    text: str
    where: str

    def spoken(self) -> str:
        """Return the text without its stage directions."""
        text = _without(_DIRECTION, self.text)
        outside = _without(_ASIDE, text)
        return text if normalise(outside) else outside


def match(files: Sequence[Found], transcripts: Path | None) -> tuple[dict[str, Transcript], list[Problem]]:
    """Return id → transcript of the audio files, and a row for every transcript that cannot be used.

    Raises:
        CorpusError: the file of transcripts is missing or not text.
    """
    if transcripts is None:
        return _beside(files)
    problems: list[Problem] = []
    names: list[str] = []
    texts: list[Transcript] = []
    for name, transcript, problem in _lines(transcripts):
        if problem:
            problems.append(Problem("unreadable line", transcript.where, problem))
        else:
            names.append(name)
            texts.append(transcript)
    matched: dict[str, Transcript] = {}
    for name, transcript, outcome in zip(names, texts, assign(files, names), strict=True):
        if isinstance(outcome, Found):
            matched[outcome.id] = transcript
        else:
            owner = texts[outcome.owner].where if outcome.owner is not None else None
            problems.append(_problem(name, transcript.where, outcome.fits, owner))
    return matched, problems


def _problem(name: str, where: str, fits: Sequence[Found], owner: str | None) -> Problem:
    if not fits:
        reason = "names no audio file: write its path below the folder, or the last parts of it"
        return Problem("transcript without audio", where, f"'{name}' {reason}")
    if owner is not None:
        reason = f"is {fits[0].name}, which has a transcript already ({owner}): this one is left out"
        return Problem("duplicate id", where, f"'{name}' {reason}")
    listed = [file.name for file in fits[:_CANDIDATES]]
    if len(fits) > _CANDIDATES:
        listed.append(f"{len(fits) - _CANDIDATES} more")
    reason = f"may be {', '.join(listed[:-1])} or {listed[-1]}: write more of the path"
    return Problem("ambiguous name", where, f"'{name}' {reason}")


def _without(brackets: re.Pattern[str], text: str) -> str:
    """Return ``text`` without what ``brackets`` matches, from the inside out."""
    count = 1
    while count:
        text, count = brackets.subn(" ", text)
    return " ".join(text.split())


def _beside(files: Sequence[Found]) -> tuple[dict[str, Transcript], list[Problem]]:
    matched: dict[str, Transcript] = {}
    problems: list[Problem] = []
    for file in files:
        path = file.path.with_suffix(".txt")
        if not path.is_file():
            continue
        where = str(PurePosixPath(file.name).with_suffix(".txt"))
        try:
            matched[file.id] = Transcript(" ".join(path.read_text(encoding="utf-8-sig").split()), where)
        except UnicodeDecodeError:
            problems.append(Problem("unreadable line", where, "not UTF-8 text: save it as UTF-8"))
    return matched, problems


def _lines(path: Path) -> Iterator[tuple[str, Transcript, str | None]]:
    """Yield name, transcript and what is wrong, if anything, of each line."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except OSError as error:
        raise CorpusError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None
    except UnicodeDecodeError as error:
        bad = error.object[: error.start].count(b"\n") + 1
        raise CorpusError(f"{path}:{bad}: not UTF-8 text: save the transcripts as UTF-8") from None
    numbered = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and line[0] not in ";#"]
    split: Callable[[str], tuple[str, str, str | None]] = _from_colon
    if path.suffix in (".jsonl", ".json"):
        split = _from_json
    elif any("\t" in line for _, line in numbered):
        name_column, text_column, has_header = _columns(numbered[0][1])
        numbered = numbered[has_header:]
        split = _TabSeparated(name_column, text_column)
    for number, line in numbered:
        name, text, problem = split(line)
        yield name, Transcript(" ".join(text.split()), f"{path.name}:{number}"), problem


def _columns(first: str) -> tuple[int, int, bool]:
    """Return which columns hold name and text, and whether the first line is a header that says so."""
    header = [part.strip().lower() for part in first.split("\t")]
    names = [header.index(column) for column in _NAME_COLUMNS if column in header]
    texts = [header.index(column) for column in _TEXT_COLUMNS if column in header]
    return (names[0], texts[0], True) if names and texts else (0, 1, False)


@dataclass(frozen=True)
class _TabSeparated:
    name: int
    text: int

    def __call__(self, line: str) -> tuple[str, str, str | None]:
        parts = line.split("\t")
        if len(parts) <= max(self.name, self.text) or not parts[self.name].strip():
            return "", "", "a line holds a name, a tab and a text"
        return parts[self.name].strip(), parts[self.text], None


def _from_json(line: str) -> tuple[str, str, str | None]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        return "", "", f"not JSON ({error.msg} at character {error.colno})"
    if not isinstance(record, dict):
        return "", "", "a line is one JSON object"
    name = next((record[column] for column in _NAME_COLUMNS if record.get(column)), None)
    text = next((record[column] for column in _TEXT_COLUMNS if record.get(column) is not None), None)
    if not isinstance(name, str) or not isinstance(text, str):
        return "", "", "needs 'audio_filepath' (or 'id') and 'text', both strings"
    return name, text, None


def _from_colon(line: str) -> tuple[str, str, str | None]:
    name, colon, text = line.partition(":")
    return (
        (name.strip(), text, None) if colon and name.strip() else ("", "", "a line looks like 'name: text'")
    )
