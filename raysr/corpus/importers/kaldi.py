"""Kaldi data directories: ``wav.scp``, and what there is of ``segments``, ``text``, ``utt2spk`` and the rest.

Format: https://kaldi-asr.org/doc/data_prep.html; segments as Kaldi's extract-segments reads them (an end of -1 is
that of the recording, a fifth column its channel). Lines of ``wav.scp`` may be shell commands: none is ever run.
"""

import math
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from raysr.corpus.importers.lines import text_lines
from raysr.corpus.importers.report import Problem
from raysr.corpus.importers.source import Entry, Recording, Segment, locate, transcript_of
from raysr.corpus.importers.transcripts import Transcript
from raysr.errors import CorpusError

_BLANK = re.compile(r"[ \t\r\n\f\v]+")
_ARCHIVE = re.compile(r":\d+(\[.*\])?$")
_ASCII_BLANKS = " \t\r\n\f\v"
_END_OF_RECORDING = -1.0


class KaldiSource:
    """A Kaldi data directory. Its tables are held in memory; lines of ``segments`` are not.

    A speaker called like the utterance means that nobody knows who it is, as Kaldi's recipes have it. Genders
    (``spk2gender``, or lhotse's ``utt2gender``) become the tag ``gender``. Durations (``reco2dur``, ``utt2dur``
    without ``segments``) are only compared: a recording that has less is a problem.

    Raises:
        CorpusError: the folder has no ``wav.scp``.
    """

    form = "kaldi"

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder).absolute()
        self.place = str(self._folder)
        self.ignored: Mapping[str, int] = {}
        if not (self._folder / "wav.scp").is_file():
            raise CorpusError(f"{folder}: no Kaldi data directory: it has no wav.scp")
        self._recordings: dict[str, tuple[Recording, str]] = {}
        self._refused: dict[str, Problem] = {}
        self._texts: dict[str, tuple[str, str]] = {}
        self._labels: dict[str, dict[str, str]] = {}

    def __iter__(self) -> Iterator[Entry | Problem]:
        whole = not (self._folder / "segments").exists()
        yield from self._read_tables(whole)
        if whole:
            for name, (recording, where) in self._recordings.items():
                yield recording, self._segment(name, where, 0.0, None)
        else:
            yield from self._read_segments()
        for name, (_, where) in self._texts.items():
            if name not in self._refused:
                yield Problem("transcript without audio", where, f"'{name}' is no utterance of this corpus")

    def _read_tables(self, whole: bool) -> Iterator[Problem]:
        durations: dict[str, str] = {}
        for name in ("reco2dur", "utt2dur") if whole else ("reco2dur",):
            durations |= {key: value for key, value, _ in (yield from self._rows(name))}
        for key, value, where in (yield from self._rows("wav.scp")):
            reason = _refusal(value)
            if reason:
                self._refused[key] = Problem("unsupported audio", where, f"recording '{key}' {reason}")
                yield self._refused[key]
            else:
                place = locate(value, str(self._folder))
                declared = _number(durations.get(key, ""))
                self._recordings[key] = (Recording(place, value, key, duration=declared), where)
        for name in ("utt2spk", "spk2gender", "utt2gender", "utt2lang"):
            self._labels[name] = {key: value for key, value, _ in (yield from self._rows(name))}
        self._texts = {
            key: (value, where) for key, value, where in (yield from self._rows("text", empty=True))
        }

    def _rows(self, name: str, empty: bool = False) -> Generator[Problem, None, list[tuple[str, str, str]]]:
        """Yield what is wrong with a table; return its keys with their values and where they stand."""
        rows: dict[str, tuple[str, str, str]] = {}
        path = self._folder / name
        for where, line in text_lines(path) if path.exists() else ():
            if isinstance(line, Problem):
                yield line
                continue
            key, _, value = _BLANK.sub(" ", line.strip(_ASCII_BLANKS), count=1).partition(" ")
            value = value.strip(_ASCII_BLANKS)
            if not value and not empty:
                yield Problem("unreadable line", where, f"'{key}' stands alone: a line of {name} has a value")
            elif key in rows:
                reason = f"'{key}' stands on {rows[key][2]} already: this line is left out"
                yield Problem("duplicate id", where, reason)
            else:
                rows[key] = (key, value, where)
        return list(rows.values())

    def _read_segments(self) -> Iterator[Entry | Problem]:
        for where, line in text_lines(self._folder / "segments"):
            if isinstance(line, Problem):
                yield line
                continue
            name, *rest = _BLANK.split(line.strip(_ASCII_BLANKS))
            entry = self._entry(name, rest, where)
            if isinstance(entry, Problem):
                self._texts.pop(name, None)
            yield entry

    def _entry(self, name: str, rest: list[str], where: str) -> Entry | Problem:
        if len(rest) not in (3, 4):
            reason = "a line of segments holds an utterance, a recording, a start and an end"
            return Problem("unreadable line", where, reason)
        reference, start, end = rest[0], _number(rest[1]), _number(rest[2])
        if reference in self._refused:
            refused = self._refused[reference]
            return Problem(refused.kind, where, f"{refused.reason} ({refused.where})")
        if reference not in self._recordings:
            return Problem(
                "missing file", where, f"'{name}' is of recording '{reference}', which wav.scp has not"
            )
        to_the_end = end == _END_OF_RECORDING
        if start is None or start < 0 or end is None or not (to_the_end or end > start):
            reason = (
                f"'{name}' goes from {rest[1]} to {rest[2]}: give seconds, the end after the start, or -1"
            )
            return Problem("bad segment", where, reason)
        recording = self._recordings[reference][0]
        if len(rest) == 4:
            if not rest[3].isdecimal():
                return Problem("bad segment", where, f"'{name}' has channel {rest[3]}: give a number from 0")
            recording = replace(recording, channel=int(rest[3]))
        return recording, self._segment(name, where, start, None if to_the_end else end - start)

    def _segment(self, name: str, where: str, start: float, duration: float | None) -> Segment:
        text, line = self._texts.pop(name, (None, where))
        speaker = self._labels["utt2spk"].get(name)
        gender = self._labels["utt2gender"].get(name) or self._labels["spk2gender"].get(speaker or "")
        return Segment(
            name,
            where,
            start,
            duration,
            transcript=Transcript("", line) if text == "" else transcript_of(text, line),
            speaker=speaker if speaker != name else None,
            language=self._labels["utt2lang"].get(name),
            tags={"gender": gender} if gender else {},
        )


def _refusal(value: str) -> str | None:
    """Return why a value of ``wav.scp`` is not read; None when it is a file."""
    if value.endswith("|") or value.startswith("|"):
        return "is a shell command, and none is run: run it once, and give the file that it writes"
    if value == "-":
        return "is standard input: give a file"
    if _ARCHIVE.search(value):
        return "lies in an archive: give the audio files (wav-copy writes them)"
    return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
