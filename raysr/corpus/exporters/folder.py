"""A folder of audio files, each with its transcript in a ``.txt`` beside it."""

from pathlib import Path

from raysr.corpus.exporters.form import Exported, extras


class FolderForm:
    """Keeps ids, as paths, and texts."""

    codec = "flac"
    audio_folder: str | None = ""
    refers = False

    def __init__(self, folder: Path, place: Path) -> None:
        self._folder = folder

    def add(self, item: Exported) -> list[str]:
        stem = item.file.rpartition(".")[0]
        if item.utterance.text is not None:
            (self._folder / f"{stem}.txt").write_text(item.utterance.text + "\n", encoding="utf-8")
        return [*extras(item.utterance), *(["id"] if stem != item.utterance.id else [])]

    def finish(self) -> list[str]:
        return []
