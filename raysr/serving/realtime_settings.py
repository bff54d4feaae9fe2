"""What a client may set of a Realtime transcription session, by its names of today and those of the beta. Pure."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field

from raysr.config import Config

PCM, MULAW, ALAW = "audio/pcm", "audio/pcmu", "audio/pcma"
ENCODINGS = {PCM: "linear16", MULAW: "mulaw", ALAW: "alaw"}
TELEPHONE_RATE = 8000
BETA_FORMATS = {"pcm16": PCM, "g711_ulaw": MULAW, "g711_alaw": ALAW}


class _Open(Config):
    """Options of which others are accepted, and change nothing."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Format(_Open):
    """How the samples of ``append`` are encoded; ``rate`` is that of ``audio/pcm``, in Hz."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: int = Field(default=24000, ge=4000, le=192_000)


class Transcription(_Open):
    """What the client says of the speech."""

    language: str | None = None
    keywords: tuple[str, ...] = ()


class TurnDetection(_Open):
    """Whatever kind it is, pauses are found by the endpointing rules of the model."""

    type: Literal["server_vad", "semantic_vad"] = "server_vad"


class AudioInput(_Open):
    """What comes in."""

    format: Format = Format()
    transcription: Transcription | None = Transcription()
    turn_detection: TurnDetection | None = TurnDetection()


class Audio(_Open):
    """Of which there is input alone."""

    input: AudioInput = AudioInput()


class Session(_Open):
    """What a client may set of a session."""

    type: Literal["transcription"] = "transcription"
    object: Literal["realtime.transcription_session"] = "realtime.transcription_session"
    audio: Audio = Audio()

    @property
    def opening(self) -> tuple[int, Sequence[str]]:
        """The rate of the samples in Hz, and the phrases to expect."""
        chosen = self.audio.input
        rate = chosen.format.rate if chosen.format.type == PCM else TELEPHONE_RATE
        return rate, chosen.transcription.keywords if chosen.transcription else ()

    @property
    def by_turns(self) -> bool:
        """Whether a pause ends an item."""
        return self.audio.input.turn_detection is not None

    @property
    def language(self) -> str | None:
        """The language that the client says is spoken."""
        return self.audio.input.transcription.language if self.audio.input.transcription else None


class Wrong(Exception):
    """An event that cannot be done as asked."""

    def __init__(self, told: str, code: str, param: str | None = None) -> None:
        super().__init__(told)
        self.code, self.param = code, param


def merged(settings: dict[str, Any], given: Any) -> dict[str, Any]:
    """Return settings with those that are given, which stay as they are where they are no settings."""
    if not isinstance(given, dict):
        raise Wrong("session should be an object", "invalid_value", "session")
    return {
        **settings,
        **{
            key: merged(settings[key], value)
            if isinstance(value, dict) and isinstance(settings.get(key), dict)
            else value
            for key, value in given.items()
        },
    }


def from_beta(given: Any) -> Any:
    """Return the settings of a session as they were called before general availability."""
    if not isinstance(given, dict):
        return given
    renamed = {"input_audio_transcription": "transcription", "turn_detection": "turn_detection"}
    found = {new: given[old] for old, new in renamed.items() if old in given}
    if "input_audio_format" in given:
        name = str(given["input_audio_format"])
        found["format"] = {"type": BETA_FORMATS.get(name, name)}
    return {"audio": {"input": found}}


def to_beta(session: Session) -> dict[str, Any]:
    chosen = session.audio.input.model_dump(mode="json")
    names = {new: old for old, new in BETA_FORMATS.items()}
    return {
        "object": "realtime.transcription_session",
        "input_audio_format": names[chosen["format"]["type"]],
        "input_audio_transcription": chosen["transcription"],
        "turn_detection": chosen["turn_detection"],
    }
