"""What an import has to do, on disk: corpora have more utterances than memory has room for."""

import json
import sqlite3
import uuid
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Self

from raysr.corpus.disk import naming_full_disk
from raysr.corpus.importers.report import Problem
from raysr.corpus.importers.source import Cell, Recording, Segment
from raysr.corpus.importers.transcripts import Transcript
from raysr.errors import CorpusError

_CACHE_KB = 16_000
_TABLES = """
CREATE TABLE recordings (number INTEGER PRIMARY KEY, body TEXT UNIQUE);
CREATE TABLE segments (id TEXT PRIMARY KEY, recording INTEGER, start REAL, body TEXT, done INTEGER DEFAULT 0);
"""
_BY_RECORDING = "CREATE INDEX by_recording ON segments (recording, start)"
_OPEN = """
SELECT r.number, r.body, s.id, s.body FROM segments s JOIN recordings r ON r.number = s.recording
WHERE NOT s.done ORDER BY s.recording, s.start
"""


class WorkList:
    """Segments by recording: each id once, the recordings in the order in which they were first named.

    A context that removes its file at the end; a killed process leaves it to ``remove_partials``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / f".worklist.{uuid.uuid4().hex[:12]}.partial"
        self._last: tuple[Recording | None, int] = (None, 0)

    def __enter__(self) -> Self:
        self._base = sqlite3.connect(self._path, isolation_level=None)
        self._base.executescript(
            f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -{_CACHE_KB};"
            + _TABLES
        )
        self._base.execute("BEGIN")
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()
        self._path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return int(self._base.execute("SELECT count(*) FROM segments").fetchone()[0])

    def add(self, recording: Recording, segment: Segment) -> Problem | None:
        """Note a segment; return what is wrong when there is one of its id already."""
        values = (segment.id, self._number(recording), segment.start, _dumps(segment))
        with self._full_disk():
            added = self._base.execute(
                "INSERT OR IGNORE INTO segments VALUES (?, ?, ?, ?, 0)", values
            ).rowcount
        if added:
            return None
        first = self.segment(segment.id)
        reason = (
            f"the id '{segment.id}' is that of {first.where if first else 'another'} too: ids must differ"
        )
        return Problem("duplicate id", segment.where, reason)

    def segment(self, name: str) -> Segment | None:
        """Return the segment with this id, if there is one."""
        row = self._base.execute("SELECT body FROM segments WHERE id = ?", (name,)).fetchone()
        return _segment(name, row[0]) if row else None

    def finish(self, name: str) -> None:
        """Note that a segment, if it is in the list, needs nothing more."""
        self._base.execute("UPDATE segments SET done = 1 WHERE id = ?", (name,))

    def finished(self) -> int:
        """Return how many segments need nothing more."""
        return int(self._base.execute("SELECT count(*) FROM segments WHERE done").fetchone()[0])

    def todo(self) -> Iterator[tuple[Recording, list[Segment]]]:
        """Yield the recordings with their unfinished segments, by start."""
        with self._full_disk():
            self._base.execute(_BY_RECORDING)
            rows = self._base.execute(_OPEN)
        for (_, body), group in groupby(rows, key=lambda row: (row[0], row[1])):
            yield _recording(body), [_segment(name, text) for _, _, name, text in group]

    def _number(self, recording: Recording) -> int:
        if recording != self._last[0]:
            body = _dumps(recording)
            with self._full_disk():
                self._base.execute("INSERT OR IGNORE INTO recordings (body) VALUES (?)", (body,))
            row = self._base.execute("SELECT number FROM recordings WHERE body = ?", (body,)).fetchone()
            self._last = (recording, row[0])
        return self._last[1]

    def _full_disk(self) -> Any:
        return naming_full_disk(self._folder)


def _dumps(value: Recording | Segment) -> str:
    """Return what a recording or a segment holds, but for the segment's id, as JSON: an array in their order."""
    names = [name for name in value.__slots__ if name != "id"]
    try:
        return json.dumps([getattr(value, name) for name in names], ensure_ascii=False, default=_plain)
    except (TypeError, ValueError) as error:
        named = value.where if isinstance(value, Segment) else value.name
        raise CorpusError(f"{named}: cannot be kept as JSON ({error})") from None


def _plain(value: object) -> object:
    if isinstance(value, Cell):
        return [value.table, value.row, value.column]
    if isinstance(value, Transcript):
        return [value.text, value.where]
    raise TypeError(f"a {type(value).__name__} is no JSON")


def _recording(body: str) -> Recording:
    audio, *rest = json.loads(body)
    return Recording(audio if isinstance(audio, str) else Cell(*audio), *rest)


def _segment(name: str, body: str) -> Segment:
    where, start, duration, transcript, *rest = json.loads(body)
    return Segment(name, where, start, duration, Transcript(*transcript) if transcript else None, *rest)
