"""A Hugging Face data set: Parquet files in ``data/`` that ``load_dataset`` reads, the audio inside."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysr.corpus.exporters.form import Exported

_SPLIT = "train"
_ROWS_PER_GROUP = 64
_BYTES_PER_FILE = 500 << 20
_TEXTS = ("id", "text", "speaker", "language", "tags", "custom")
_FEATURES: dict[str, Any] = {
    "audio": {"sampling_rate": 16000, "_type": "Audio"},
    **{name: {"dtype": "string", "_type": "Value"} for name in _TEXTS},
}
_SCHEMA = pa.schema(
    [
        ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        *((name, pa.string()) for name in _TEXTS),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


class HuggingFaceForm:
    """Keeps everything; ``tags`` and ``custom`` are columns of JSON."""

    codec = "flac"
    audio_folder: str | None = None
    refers = False

    def __init__(self, folder: Path, place: Path) -> None:
        self._folder = folder / "data"
        self._folder.mkdir()
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._files: list[Path] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, item: Exported) -> list[str]:
        utterance = item.utterance
        self._rows.append(
            {
                "audio": {"bytes": item.audio, "path": item.file},
                "id": utterance.id,
                "text": utterance.text,
                "speaker": utterance.speaker,
                "language": utterance.language,
                "tags": _json(utterance.tags),
                "custom": _json(utterance.custom),
            }
        )
        self._bytes += len(item.audio)
        if len(self._rows) >= _ROWS_PER_GROUP:
            self._flush()
        if self._bytes >= _BYTES_PER_FILE:
            self._close()
        return []

    def finish(self) -> list[str]:
        self._close()
        for number, path in enumerate(self._files):
            path.rename(path.with_name(f"{_SPLIT}-{number:05d}-of-{len(self._files):05d}.parquet"))
        return []

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            self._files.append(self._folder / f"{len(self._files)}.parquet")
            self._writer = pq.ParquetWriter(self._files[-1], _SCHEMA, compression={"audio.bytes": "none"})
        self._writer.write_table(pa.Table.from_pylist(self._rows, _SCHEMA))
        self._rows = []

    def _close(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()
        self._writer, self._bytes = None, 0


def _json(value: Mapping[str, Any]) -> str | None:
    return json.dumps(dict(value), ensure_ascii=False, allow_nan=False) if value else None
