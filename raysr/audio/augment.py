"""Speech made harder: faster, in a room, behind music or babble, through a bad microphone, a codec and a bad line.

A recipe is plain JSON, every part of it optional, carried out in this order:

    {"seed": 12, "speed": 1.1, "tempo": 0.95,
     "room": {"rt60": 0.4, "distance": 1.5},
     "noise": {"snr_db": 15}, "music": {"snr_db": 5, "files": "my/music"}, "babble": {"snr_db": 10, "files": "talk"},
     "clip": 0.02, "band": {"low": 300, "high": 3400}, "codec": {"kind": "opus", "bit_rate": 12000},
     "packets": {"share": 0.05, "burst": 2}, "gain_db": -3}

A speaker stands in a ``room`` or walks about in one, ``"walk": {"near": 0.5, "far": 4, "rt60": 0.6}``. Each part draws
from a stream of its own, so that adding one leaves the others as they were.
"""

from collections.abc import Callable
from typing import Annotated, Literal, Self, TypeVar

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from raysr.audio.channel import (
    Codec,
    Concealment,
    band_pass,
    check_bit_rate,
    check_line,
    clip,
    lose_packets,
    through_codec,
)
from raysr.audio.mix import Room, apply_mix, coloured_noise
from raysr.audio.moving import draw_walk, walk
from raysr.audio.music import generate_music
from raysr.audio.sounds import babble, behind, excerpt, sounds_of
from raysr.audio.tempo import FACTORS, SAMPLE_RATE, change_speed, change_tempo, hundredths
from raysr.config import Config
from raysr.errors import AudioError

PEAK = 0.99
C = TypeVar("C")
_STREAMS = ("room", "walk", "noise", "music", "babble", "packets")
Colour = Literal["white", "pink", "brown"]
Factor = Annotated[float, Field(ge=FACTORS[0], le=FACTORS[1]), AfterValidator(hundredths)]
Decibels = Annotated[float, Field(ge=-100, le=100)]


class Walk(Config):
    """Somebody who walks to and fro in a room while speaking."""

    near: float = Field(0.5, ge=0.05, le=100)
    """Metres from the microphone, at least."""
    far: float = Field(4.0, ge=0.05, le=100)
    """Metres from the microphone, at most."""
    rt60: float = Field(0.5, gt=0, le=10)
    """Reverberation time in seconds."""
    volume: float = Field(60.0, ge=1, le=1e6)
    """Of the room in cubic metres."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.near > self.far:
            raise ValueError(f"near ({self.near:g} m) is farther than far ({self.far:g} m)")
        return self


class Sound(Config):
    """Something behind the speech: generated, or an excerpt of the files of a folder."""

    snr_db: Decibels
    """By how much the active speech is louder."""
    files: str | None = None
    """A folder of recordings, or one recording."""


class Noise(Sound):
    """Noise; generated in a colour."""

    colour: Colour | None = None
    """``pink`` unless given."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.files is not None and self.colour is not None:
            raise ValueError("files and colour: noise is recorded or generated; leave one out")
        return self


class Babble(Sound):
    """Other people's talk."""

    files: str
    talkers: int = Field(5, ge=1, le=100)


class Band(Config):
    """The frequencies that come through, in Hz."""

    low: float = Field(0.0, ge=0, lt=SAMPLE_RATE / 2)
    high: float = Field(SAMPLE_RATE / 2, gt=0, le=SAMPLE_RATE / 2)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g} Hz) is not below high ({self.high:g} Hz)")
        return self


class CodecPart(Config):
    """A codec, and its bit rate in bit/s where it has several."""

    kind: Codec
    bit_rate: int | None = None

    @model_validator(mode="after")
    def _has_it(self) -> Self:
        return as_values(self, lambda: check_bit_rate(self.kind, self.bit_rate))


class Packets(Config):
    """A line that loses packets of 20 ms."""

    share: float = Field(gt=0, lt=1)
    burst: float | None = Field(None, ge=1, le=1e6)
    """Packets lost in a row, on average; losses know nothing of each other unless given."""
    concealment: Concealment = "repeat"

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        return as_values(self, lambda: check_line(self.share, self.burst))


class Augmentation(Config):
    """What is done to an utterance."""

    seed: int = Field(0, ge=0)
    speed: Factor = 1.0
    tempo: Factor = 1.0
    room: Room | None = None
    walk: Walk | None = None
    noise: Noise | None = None
    music: Sound | None = None
    babble: Babble | None = None
    clip: float = Field(0.0, ge=0, lt=1)
    """The share of samples that are cut off."""
    band: Band | None = None
    codec: CodecPart | None = None
    packets: Packets | None = None
    gain_db: Decibels = 0.0

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.room and self.walk:
            raise ValueError("room and walk: a speaker stands or walks; leave one out")
        return self

    @property
    def stretch(self) -> float:
        """How many times as long the speech becomes: what was at t seconds is at t · stretch afterwards."""
        return 1 / (self.speed * self.tempo)


def augment(samples: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    """Return samples (N,), float32 at 16 kHz, with all of it done.

    The same recipe gives the same bits, with the same libraries on the same kind of processor. Only speed and tempo
    change the length. The result never exceeds full scale: where it would, all is turned down.

    Raises:
        AudioError: a folder without audio, or a recording that cannot be read, by name.
    """
    a = augmentation
    speech = change_tempo(
        change_speed(samples, a.speed) if a.speed != 1 else np.asarray(samples, np.float32), a.tempo
    )
    if a.room is not None:
        speech = apply_mix(speech, {"seed": a.seed, "room": a.room.model_dump()})
    if a.walk is not None:
        draws, w = _stream(a.seed, "walk"), a.walk
        path = draw_walk(len(speech) / SAMPLE_RATE, w.near, w.far, draws)
        speech = walk(speech, path, w.rt60, w.volume, draws)
    heard = speech
    for name, part in (("noise", a.noise), ("music", a.music), ("babble", a.babble)):
        if part is not None:
            sound = _sound(part, len(speech), _stream(a.seed, name))
            heard = heard + behind(speech, sound, part.snr_db)
    if a.clip:
        heard = clip(heard, a.clip)
    if a.band is not None:
        heard = band_pass(heard, a.band.low, a.band.high)
    heard = _within(heard)
    if a.codec is not None:
        heard = through_codec(heard, a.codec.kind, a.codec.bit_rate)
    if a.packets is not None:
        line = a.packets.burst, a.packets.concealment
        heard = lose_packets(heard, a.packets.share, _stream(a.seed, "packets"), *line)
    return _within(heard * np.float32(10 ** (a.gain_db / 20)))


def _sound(part: Sound, length: int, draws: np.random.Generator) -> np.ndarray:
    """Return what is behind the speech (length,), of any power."""
    if part.files is not None:
        files = sounds_of(part.files)
        if isinstance(part, Babble):
            return babble(files, part.talkers, length, draws)
        return excerpt(files, length, draws)
    if isinstance(part, Noise):
        return coloured_noise(length, part.colour or "pink", draws)
    return generate_music(length, draws)


def as_values(config: C, check: Callable[[], None]) -> C:
    """Return a configuration that passes; what is wrong with its values is told as pydantic tells it."""
    try:
        check()
    except AudioError as error:
        raise ValueError(str(error)) from None
    return config


def _stream(seed: int, part: str) -> np.random.Generator:
    return np.random.default_rng([seed, 1 + _STREAMS.index(part)])


def _within(samples: np.ndarray) -> np.ndarray:
    peak = float(np.max(np.abs(samples), initial=0.0))
    return samples * np.float32(PEAK / peak) if peak > 1 else samples
