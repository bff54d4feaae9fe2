"""The columns of a shard: an utterance as one row of Parquet."""

import json
from typing import Any

import pyarrow as pa

from raysr.corpus.utterance import Utterance

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("audio", pa.binary(), nullable=False),
        pa.field("start", pa.float64(), nullable=False),
        pa.field("duration", pa.float64(), nullable=False),
        pa.field("sample_rate", pa.int32(), nullable=False),
        ("text", pa.string()),
        ("speaker", pa.string()),
        ("language", pa.string()),
        ("tags", pa.map_(pa.string(), pa.string())),
        ("mix", pa.string()),
        ("custom", pa.string()),
    ]
)
REQUIRED = frozenset({"id", "audio", "duration"})


def to_row(utterance: Utterance, audio: bytes) -> dict[str, Any]:
    """Return the row of an utterance with its encoded audio."""
    return {
        "id": utterance.id,
        "audio": audio,
        "start": utterance.start,
        "duration": utterance.duration,
        "sample_rate": utterance.sample_rate,
        "text": utterance.text,
        "speaker": utterance.speaker,
        "language": utterance.language,
        "tags": list(utterance.tags.items()),
        "mix": json.dumps(dict(utterance.mix), allow_nan=False) if utterance.mix is not None else None,
        "custom": json.dumps(dict(utterance.custom), allow_nan=False) if utterance.custom else None,
    }


def from_row(record: dict[str, Any], path: str, row: int) -> Utterance:
    """Return the utterance of a row, read without its audio; columns but the required may be missing."""
    mix, custom = record.get("mix"), record.get("custom")
    return Utterance(
        id=record["id"],
        audio=path,
        row=row,
        start=record.get("start") or 0.0,
        duration=record["duration"],
        sample_rate=record.get("sample_rate") or 16000,
        text=record.get("text"),
        speaker=record.get("speaker"),
        language=record.get("language"),
        tags=dict(record.get("tags") or ()),
        mix=json.loads(mix) if mix else None,
        custom=json.loads(custom) if custom else {},
    )
