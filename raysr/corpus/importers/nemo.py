"""NeMo's manifests: a JSON object a line, which names an audio file, a part of it, and what is said there.

Keys as NeMo reads them (``nemo/collections/common/parts/preprocessing/manifest.py``, and its lhotse adapter);
those that nobody knows are kept in ``custom``. raysr's own JSONL manifests are of this form.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raysr.corpus import places
from raysr.corpus.importers.lines import json_lines, label, number, string, whole
from raysr.corpus.importers.report import Problem
from raysr.corpus.importers.source import Entry, Recording, Segment, locate, transcript_of
from raysr.corpus.importers.transcripts import Transcript
from raysr.corpus.records import default_id
from raysr.errors import CorpusError

_FILE = ("audio_filepath", "audio_filename")
_LANGUAGE = ("lang", "language", "target_lang", "source_lang")
_KNOWN = {*_FILE, "id", "offset", "duration", "text", "speaker", "lang", "language", "tags", "custom"}
_RATE = ("sampling_rate", "sample_rate")
_SKIP = "_skipme"


class NemoSource:
    """A NeMo manifest (``.json`` or ``.jsonl``, gzipped or not).

    Without ``id``, an utterance is named by its file and its offset. A line without ``duration`` takes the whole
    file; an empty ``text`` is no transcript, since NeMo cannot leave it out; lines with ``_skipme`` are ignored.

    Raises:
        CorpusError: no such file, or a manifest of a tarred data set.
    """

    form = "nemo"

    def __init__(self, path: str | Path) -> None:
        self.place = places.absolute(path)
        self.ignored: Mapping[str, int] = {}
        self._folder = places.parent(self.place)
        first = next((record for _, record in json_lines(self.place) if isinstance(record, dict)), {})
        if "shard_id" in first:
            raise CorpusError(
                f"{path}: the manifest of a tarred data set: unpack its .tar files beside it, and remove 'shard_id'"
            )

    def __iter__(self) -> Iterator[Entry | Problem]:
        skipped = 0
        for where, record in json_lines(self.place):
            if isinstance(record, Problem):
                yield record
            elif record.get(_SKIP):
                skipped += 1
                self.ignored = {_SKIP: skipped}
            else:
                try:
                    yield self._entry(record, where)
                except (ValueError, CorpusError) as error:
                    yield Problem("unreadable line", where, str(error))

    def _entry(self, record: dict[str, Any], where: str) -> Entry | Problem:
        path = next((record[key] for key in _FILE if record.get(key)), None)
        if not isinstance(path, str):
            raise ValueError("'audio_filepath' names one audio file: several, or none, cannot be used")
        unusable = next((key for key in ("row", "mix") if record.get(key) is not None), None)
        if unusable:
            reason = (
                f"has '{unusable}': such utterances are in raysr's form already, use the manifest as it is"
            )
            return Problem("unsupported audio", where, reason)
        start, duration = number(record, "offset") or 0.0, number(record, "duration")
        if duration == 0:
            return Problem("no audio", where, f"{path}: lasts 0 s: give its duration, or remove the line")
        rate = whole(record, _RATE[0]) or whole(record, _RATE[1])
        language = next((found for key in _LANGUAGE if (found := label(record, key))), None)
        name = label(record, "id") or default_id(path, start)
        segment = Segment(
            name,
            where,
            start,
            duration,
            transcript=self._transcript(record, where),
            speaker=label(record, "speaker"),
            language=language,
            tags={key: str(value) for key, value in _mapping(record, "tags").items()},
            custom={key: value for key, value in record.items() if key not in {*_KNOWN, *_RATE}}
            | _mapping(record, "custom"),
        )
        return Recording(locate(path, self._folder), path, path, sample_rate=rate), segment

    def _transcript(self, record: dict[str, Any], where: str) -> Transcript | None:
        text = string(record, "text")
        if text is None and (path := string(record, "text_filepath")):
            try:
                with open(locate(path, self._folder), encoding="utf-8-sig") as file:
                    text = file.read()
            except (OSError, UnicodeDecodeError):
                raise ValueError(f"'text_filepath' {path} is no file of UTF-8 text") from None
        return transcript_of(text or string(record, "normalized_text"), where)


def _mapping(record: dict[str, Any], key: str) -> dict[str, Any]:
    value = record.get(key) or {}
    if not isinstance(value, dict):
        raise ValueError(f"'{key}' is an object of names and values")
    return value


def is_nemo(record: Mapping[str, Any]) -> bool:
    """Return whether a line looks like NeMo's."""
    return any(key in record for key in _FILE)
