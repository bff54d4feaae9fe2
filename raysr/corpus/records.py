"""An utterance as one JSON object: NeMo's keys (``audio_filepath``, ``offset``, …) and ours.

Keys that nobody knows are kept in ``custom``. Relative audio paths are relative to the manifest's folder.
Source of the keys: NVIDIA NeMo's ASR manifest format.
"""

import math
import os
from collections.abc import Mapping
from typing import Any

from raysr.corpus import places
from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError

_KNOWN = {
    "id",
    "audio_filepath",
    "row",
    "offset",
    "duration",
    "sample_rate",
    "text",
    "speaker",
    "language",
    "lang",
    "tags",
    "mix",
    "custom",
}


def to_record(utterance: Utterance, folder: str) -> dict[str, Any]:
    """Return the JSON object of an utterance for a manifest in ``folder``; only what is not the default."""
    record: dict[str, Any] = {
        "id": utterance.id,
        "audio_filepath": _relative(utterance.audio, folder),
        "row": utterance.row,
        "offset": utterance.start or None,
        "duration": utterance.duration,
        "sample_rate": utterance.sample_rate,
        "text": utterance.text,
        "speaker": utterance.speaker,
        "language": utterance.language,
        "tags": dict(utterance.tags) or None,
        "mix": dict(utterance.mix) if utterance.mix is not None else None,
        "custom": dict(utterance.custom) or None,
    }
    return {key: value for key, value in record.items() if value is not None}


def from_record(record: Any, folder: str, where: str) -> Utterance:
    """Return the utterance of a JSON object; raise :class:`CorpusError` that begins with ``where``."""
    if not isinstance(record, Mapping):
        raise CorpusError(f"{where}: a line is one JSON object, not a {type(record).__name__}")
    path = record.get("audio_filepath")
    if not isinstance(path, str) or not path:
        raise CorpusError(f"{where}: 'audio_filepath' is missing: name the audio file")
    start = _seconds(record, "offset", where) if record.get("offset") is not None else 0.0
    if record.get("duration") is None:
        raise CorpusError(f"{where}: 'duration' is missing: give it in seconds, or use `raysr data import`")
    custom = {key: value for key, value in record.items() if key not in _KNOWN}
    return Utterance(
        id=str(record["id"]) if record.get("id") is not None else default_id(path, start),
        audio=places.absolute(path, folder),
        row=_integer(record, "row", where),
        start=start,
        duration=_seconds(record, "duration", where),
        sample_rate=_integer(record, "sample_rate", where) or 16000,
        text=_string(record, "text", where),
        speaker=_string(record, "speaker", where),
        language=_string(record, "language" if "language" in record else "lang", where),
        tags={key: str(value) for key, value in _mapping(record, "tags", where).items()},
        mix=_mapping(record, "mix", where) if record.get("mix") is not None else None,
        custom=custom | _mapping(record, "custom", where),
    )


def default_id(path: str, start: float) -> str:
    """Name an utterance after its file and place, so that the name outlives lines added above it."""
    stem = os.path.splitext(path)[0]
    return f"{stem}@{start:g}" if start else stem


def _relative(audio: str, folder: str) -> str:
    if places.is_uri(audio):
        return audio
    relative = os.path.relpath(audio, folder)
    return audio if relative.startswith("..") else relative


def _seconds(record: Mapping[str, Any], key: str, where: str) -> float:
    value = record[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise CorpusError(f"{where}: '{key}' is a number of seconds, not {value!r}")
    return float(value)


def _integer(record: Mapping[str, Any], key: str, where: str) -> int | None:
    value = record.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise CorpusError(f"{where}: '{key}' is a whole number, not {value!r}")
    return value


def _string(record: Mapping[str, Any], key: str, where: str) -> str | None:
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise CorpusError(f"{where}: '{key}' is a string, not {value!r}")
    return value


def _mapping(record: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = record.get(key) or {}
    if not isinstance(value, Mapping):
        raise CorpusError(f"{where}: '{key}' is an object of names and values, not {value!r}")
    return dict(value)
