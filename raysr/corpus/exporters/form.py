"""What the exporter of one form is, and what it is handed."""

from dataclasses import dataclass
from typing import Protocol

from raysr.corpus.utterance import Utterance


@dataclass(frozen=True)
class Exported:
    """An utterance whose audio is where the export says.

    Attributes:
        utterance: with ``audio``, ``start`` and ``duration`` of ``file``.
        file: relative to the export's folder where its audio was written out, else the absolute path of a file
            that is referred to.
        sample_rate, samples: of the whole file, in Hz and per channel.
        audio: its bytes, for forms that keep them inside.
    """

    utterance: Utterance
    file: str
    sample_rate: int
    samples: int
    audio: bytes = b""

    @property
    def seconds(self) -> float:
        """The length of the whole file."""
        return self.samples / self.sample_rate


class Form(Protocol):
    """Writes utterances to a folder.

    Attributes:
        codec: of the audio files, ``wav`` or ``flac``, unless the user says otherwise.
        audio_folder: where below the export's folder the audio files go; None keeps their bytes inside.
        refers: whether it can name a part of a file that lies elsewhere.
    """

    codec: str
    audio_folder: str | None
    refers: bool

    def add(self, item: Exported) -> list[str]:
        """Take an utterance; return the names of what it has and this form cannot hold."""
        ...

    def finish(self) -> list[str]:
        """Write what is left to write; return the names of what was dropped for all."""
        ...


def extras(utterance: Utterance, *held: str) -> list[str]:
    """Return which of speaker, language, tags and custom an utterance has, but for those that are held."""
    return [
        name
        for name in ("speaker", "language", "tags", "custom")
        if name not in held and getattr(utterance, name)
    ]
