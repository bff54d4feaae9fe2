"""lhotse's cuts: ``cuts.jsonl.gz`` beside ``audio/``, one ``MonoCut`` with one supervision an utterance."""

import gzip
import json
from pathlib import Path
from typing import Any

from raysr.corpus.exporters.form import Exported


class LhotseForm:
    """Keeps everything; tags lie in the cut's ``custom``, a tag ``gender`` is the supervision's."""

    codec = "flac"
    audio_folder: str | None = "audio"
    refers = True

    def __init__(self, folder: Path, place: Path) -> None:
        self._place = place
        self._file = gzip.GzipFile(folder / "cuts.jsonl.gz", mode="wb", mtime=0)

    def add(self, item: Exported) -> list[str]:
        line = json.dumps(_cut(item, str(self._place / item.file)), ensure_ascii=False, allow_nan=False)
        self._file.write(line.encode() + b"\n")
        return []

    def finish(self) -> list[str]:
        self._file.close()
        return []


def _cut(item: Exported, path: str) -> dict[str, Any]:
    utterance = item.utterance
    name = item.file if item.file == path else utterance.id
    tags = dict(utterance.tags)
    gender = tags.pop("gender", None)
    supervision = {
        "id": utterance.id,
        "recording_id": name,
        "start": 0.0,
        "duration": utterance.duration,
        "channel": 0,
        "text": utterance.text,
        "language": utterance.language,
        "speaker": utterance.speaker,
        "gender": gender,
    }
    known = any(supervision[key] is not None for key in ("text", "language", "speaker", "gender"))
    custom = {**utterance.custom, **({"tags": tags} if tags else {})}
    return {
        "id": utterance.id,
        "start": utterance.start,
        "duration": utterance.duration,
        "channel": 0,
        "supervisions": [{k: v for k, v in supervision.items() if v is not None}] if known else [],
        "recording": {
            "id": name,
            "sources": [{"type": "file", "channels": [0], "source": path}],
            "sampling_rate": item.sample_rate,
            "num_samples": item.samples,
            "duration": item.seconds,
            "channel_ids": [0],
        },
        **({"custom": custom} if custom else {}),
        "type": "MonoCut",
    }
