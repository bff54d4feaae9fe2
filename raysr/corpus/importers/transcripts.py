"""Reading transcripts in the forms people keep them in.

One file for all: tab-separated (``name<TAB>text``, or any columns under a header that names them), JSONL
(``{"audio_filepath" | "id" | "file" | "name": …, "text": …}``), or lines ``name: text`` with ``;`` before
comments. Or a ``.txt`` beside each audio file.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from raysr.corpus.importers.report import Problem
from raysr.corpus.importers.scan import AUDIO, Found
from raysr.errors import CorpusError

_NAME_COLUMNS = ("path", "audio_filepath", "file", "filename", "audio", "name", "id")
_TEXT_COLUMNS = ("text", "transcript", "transcription", "sentence")


@dataclass(frozen=True)
class Transcript:
    """A text, and where it stands."""

    text: str
    where: str


def match(files: Sequence[Found], transcripts: Path | None) -> tuple[dict[str, Transcript], list[Problem]]:
    """Return id → transcript of the audio files, and a row for every transcript that cannot be used.

    Raises:
        CorpusError: the file of transcripts is missing or not text.
    """
    if transcripts is None:
        return _beside(files)
    problems: list[Problem] = []
    named: dict[str, Transcript] = {}
    for name, transcript, problem in _lines(transcripts):
        if problem:
            problems.append(Problem("unreadable line", transcript.where, problem))
            continue
        key = _key(name)
        if key in named:
            reason = f"'{name}' has a transcript already ({named[key].where}): this one is left out"
            problems.append(Problem("duplicate id", transcript.where, reason))
        else:
            named[key] = transcript
    matched, used = _match(files, named)
    for key, transcript in named.items():
        if key not in used:
            reason = f"'{key}' names no audio file: correct the name, or add the file"
            problems.append(Problem("transcript without audio", transcript.where, reason))
    return matched, problems


def _match(files: Sequence[Found], named: dict[str, Transcript]) -> tuple[dict[str, Transcript], set[str]]:
    """Match by path below the folder; by the bare file name where only one file has it."""
    bare: dict[str, list[str]] = {}
    for file in files:
        bare.setdefault(PurePosixPath(file.id).name, []).append(file.id)
    ids = {file.id for file in files}
    matched: dict[str, Transcript] = {}
    used: set[str] = set()
    for key, transcript in named.items():
        same_name = bare.get(PurePosixPath(key).name, [])
        target = key if key in ids else same_name[0] if len(same_name) == 1 else None
        if target is not None and target not in matched:
            matched[target] = transcript
            used.add(key)
    return matched, used


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


def _key(name: str) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    return str(path.with_suffix("")) if path.suffix.lower() in AUDIO else str(path)
