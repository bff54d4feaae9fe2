"""A NeMo manifest: ``manifest.json`` beside ``audio/``, with whatever else raysr knows in keys that NeMo ignores."""

import json
from pathlib import Path

from raysr.corpus.exporters.form import Exported


class NemoForm:
    """Keeps everything."""

    codec = "flac"
    audio_folder: str | None = "audio"
    refers = True

    def __init__(self, folder: Path, place: Path) -> None:
        self._file = (folder / "manifest.json").open("wb")

    def add(self, item: Exported) -> list[str]:
        utterance = item.utterance
        record = {
            "audio_filepath": item.file,
            "offset": utterance.start or None,
            "duration": utterance.duration,
            "text": utterance.text,
            "id": utterance.id,
            "speaker": utterance.speaker,
            "lang": utterance.language,
            "sampling_rate": item.sample_rate,
            "tags": dict(utterance.tags) or None,
            "custom": dict(utterance.custom) or None,
        }
        plain = {key: value for key, value in record.items() if value is not None}
        self._file.write(json.dumps(plain, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        return []

    def finish(self) -> list[str]:
        self._file.close()
        return []
