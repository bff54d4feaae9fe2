"""Mixing room, noise, music and level into speech when it is loaded; the same recipe gives the same bits.

A recipe is plain JSON, every part of it optional:

    {"seed": 12,
     "room": {"rt60": 0.4, "distance": 1.5, "volume": 60},
     "noise": {"snr_db": 15, "colour": "pink"},
     "music": {"snr_db": 10, "file": "piano.ogg"},
     "gain_db": -3}

Noise and music are generated from the seed, or taken from ``file`` at an offset that the seed decides. Each
part draws from a stream of its own, so that adding music leaves the room as it was.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from pydantic import Field

from raysr.audio.files import decode
from raysr.audio.music import generate_music
from raysr.audio.rooms import SAMPLE_RATE, convolve, impulse_response
from raysr.config import Config
from raysr.errors import AudioError, ConfigError

_EXPONENTS = {"white": 0.0, "pink": 1.0, "brown": 2.0}  # noise power falls as 1 / f^exponent
_STREAMS = {"room": 1, "noise": 2, "music": 3}
_PEAK = 0.99
_FRAME = SAMPLE_RATE // 50
ACTIVE_RANGE_DB = 35.0


class Room(Config):
    """A room, by its reverberation time (seconds), the speaker's distance (metres) and its volume (m³)."""

    rt60: float = Field(0.4, gt=0, le=10)
    distance: float = Field(1.0, ge=0, le=100)
    volume: float = Field(60.0, gt=0)


class Music(Config):
    """Music: generated, or an excerpt of ``file``."""

    snr_db: float = Field(allow_inf_nan=False)
    file: str | None = None


class Noise(Music):
    """Noise: generated in a colour, or an excerpt of ``file``."""

    colour: Literal["white", "pink", "brown"] = "pink"


class Recipe(Config):
    """What is mixed into an utterance."""

    seed: int = Field(0, ge=0)
    room: Room | None = None
    noise: Noise | None = None
    music: Music | None = None
    gain_db: float = Field(0.0, allow_inf_nan=False)


def apply_mix(samples: np.ndarray, recipe: Mapping[str, Any]) -> np.ndarray:
    """Return ``samples`` (N,), float32 at 16 kHz, with the recipe mixed in; the length stays.

    ``snr_db`` holds between the active speech, after the room, and each addition by itself. The result never
    clips: where it would, the whole is turned down.

    Raises:
        AudioError: the recipe holds something unknown, or names a file that cannot be read.
    """
    parsed = _parse(recipe)
    speech = np.asarray(samples, dtype=np.float32)
    if parsed.room:
        speech = _in_room(speech, parsed.room, _generator(parsed.seed, "room"))
    mixed: np.ndarray = speech
    power = active_power(speech)
    for name, part in (("noise", parsed.noise), ("music", parsed.music)):
        if part and power > 0:
            added = _addition(part, len(speech), _generator(parsed.seed, name))
            mixed = mixed + added * np.float32(np.sqrt(power * 10 ** (-part.snr_db / 10)))
    mixed = mixed * np.float32(10 ** (parsed.gain_db / 20))
    peak = float(np.max(np.abs(mixed), initial=0.0))
    return mixed * np.float32(_PEAK / peak) if peak > _PEAK else mixed


def active_power(samples: np.ndarray) -> float:
    """Return the mean square of the 20 ms frames that lie within 35 dB of the loudest one."""
    whole = len(samples) // _FRAME * _FRAME
    frames = samples[:whole].reshape(-1, _FRAME) if whole else samples.reshape(1, -1)
    powers = np.mean(np.square(frames, dtype=np.float64), axis=1) if frames.size else np.zeros(1)
    loudest = powers.max()
    return float(powers[powers >= loudest * 10 ** (-ACTIVE_RANGE_DB / 10)].mean())


def coloured_noise(length: int, colour: str, generator: np.random.Generator) -> np.ndarray:
    """Return noise (length,) whose power falls as 1, 1/f (pink) or 1/f² (brown)."""
    white = generator.standard_normal(max(length, 2), dtype=np.float32)
    frequency = np.fft.rfftfreq(len(white), 1 / SAMPLE_RATE)
    shape = np.maximum(frequency, 40.0) ** (-_EXPONENTS[colour] / 2)  # flat below hearing
    return np.fft.irfft(np.fft.rfft(white) * shape, len(white))[:length].astype(np.float32)


def _in_room(speech: np.ndarray, room: Room, generator: np.random.Generator) -> np.ndarray:
    """Return reverberated speech as loud as it was."""
    wet = convolve(speech, impulse_response(room.rt60, room.distance, room.volume, generator))
    dry_power, wet_power = active_power(speech), active_power(wet)
    return wet * np.float32(np.sqrt(dry_power / wet_power)) if wet_power > 0 else wet


def _addition(part: Music, length: int, generator: np.random.Generator) -> np.ndarray:
    """Return noise or music (length,) of unit power."""
    if part.file:
        added = _excerpt(_recording(part.file), length, generator)
    elif isinstance(part, Noise):
        added = coloured_noise(length, part.colour, generator)
    else:
        added = generate_music(length, generator)
    power = float(np.mean(np.square(added, dtype=np.float64))) if length else 0.0
    return added / np.float32(np.sqrt(power)) if power > 0 else added


def _excerpt(recording: np.ndarray, length: int, generator: np.random.Generator) -> np.ndarray:
    """Return ``length`` samples from a random place, the recording going round where it is too short."""
    start = int(generator.integers(0, len(recording)))
    return recording.take(np.arange(start, start + length), mode="wrap")


@lru_cache(maxsize=32)
def _recording(path: str) -> np.ndarray:
    return decode(path)


def _generator(seed: int, part: str) -> np.random.Generator:
    return np.random.default_rng([seed, _STREAMS[part]])


def _parse(recipe: Mapping[str, Any]) -> Recipe:
    try:
        return Recipe.parse(recipe, where="mix")
    except ConfigError as error:
        raise AudioError(str(error)) from None
