"""An utterance: one segment of audio with an id; immutable, and the same thing everywhere in raysr."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Utterance:
    """A segment of audio.

    Attributes:
        id: unique within its manifest.
        audio: path or URI of an audio file, or of the Parquet shard that holds the bytes.
        row: the row within that shard; None when ``audio`` is an audio file.
        start: where the segment begins in its file, in seconds.
        duration: length in seconds.
        sample_rate: of the file, in Hz.
        text: the transcript, when there is one.
        speaker, language: labels, when known.
        tags: conditions for evaluation by group, such as ``{"engine": "flite"}``.
        mix: what is mixed in when the audio is loaded (see ``raysr.audio.mix``); None leaves it as it is.
        custom: anything else the manifest carried; kept, never interpreted.
    """

    id: str
    audio: str
    duration: float
    row: int | None = None
    start: float = 0.0
    sample_rate: int = 16000
    text: str | None = None
    speaker: str | None = None
    language: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    mix: Mapping[str, Any] | None = None
    custom: Mapping[str, Any] = field(default_factory=dict)

    def with_text(self, text: str | None) -> "Utterance":
        """Return this utterance with another transcript."""
        return replace(self, text=text)
