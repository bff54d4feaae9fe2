"""Sounds from a folder of the user's own: noise, music, other people's talk; excerpts of unit power."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from raysr.audio.files import SAMPLE_RATE, decode, probe
from raysr.audio.mix import active_power
from raysr.audio.suffixes import AUDIO
from raysr.errors import AudioError

KEPT = 64
"""Recordings kept in memory, of those that are not longer than …"""
SHORT_S = 120.0
"""… this; of a longer one only the excerpt is decoded."""


def audio_files(folder: str | Path) -> list[Path]:
    """Return the audio files of a folder and of those within it, in one order on every machine.

    Raises:
        AudioError: the folder is not there, or holds none.
    """
    root = Path(folder)
    if not root.is_dir():
        raise AudioError(f"{root}: no such folder")
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in AUDIO and path.is_file())
    if not found:
        raise AudioError(f"{root} holds no audio files")
    return found


@lru_cache(maxsize=KEPT)
def sounds_of(place: str) -> list[Path]:
    """Return a recording, or those of a folder as they were when this process first asked.

    Raises as :func:`audio_files` does.
    """
    return [Path(place)] if Path(place).is_file() else audio_files(place)


def excerpt(files: Sequence[Path], length: int, generator: np.random.Generator) -> np.ndarray:
    """Return ``length`` samples at 16 kHz of one of the files, from anywhere in it, going round where it is too short.

    Of unit power, float32; silence stays silence.

    Raises:
        AudioError: a file that cannot be read, by name.
    """
    file = str(files[int(generator.integers(len(files)))])
    place = generator.random()
    seconds = probe(file).duration
    if seconds is not None and seconds > SHORT_S and length / SAMPLE_RATE < seconds:
        start = place * (seconds - length / SAMPLE_RATE)
        found = decode(file, start=start, duration=length / SAMPLE_RATE)
        return _unit(np.resize(found, length))  # a header may promise a little more than there is
    recording = _recording(file)
    start = int(place * len(recording))
    return _unit(recording.take(np.arange(start, start + length), mode="wrap"))


def babble(files: Sequence[Path], talkers: int, length: int, generator: np.random.Generator) -> np.ndarray:
    """Return ``length`` samples of several recordings of speech at once, each as loud, together of unit power.

    Args:
        files: of speech, one speaker each as far as may be.
        talkers: how many talk, one or more.
    """
    if talkers < 1:
        raise AudioError(f"{talkers} talkers: one or more make a babble")
    total = np.zeros(length, np.float32)
    for _ in range(talkers):
        total += excerpt(files, length, generator)
    return _unit(total)


def behind(speech: np.ndarray, sound: np.ndarray, snr_db: float) -> np.ndarray:
    """Return a sound (N,) as loud as it has to be for the active speech (N,) to be ``snr_db`` above its mean power.

    Active are the frames of 20 ms within 35 dB of the loudest. Behind silence it is silent.
    """
    noise = float(np.mean(np.square(sound, dtype=np.float64))) if len(sound) else 0.0
    if noise <= 0:
        return sound
    return sound * np.float32(np.sqrt(active_power(speech) / noise * 10 ** (-snr_db / 10)))


def _unit(samples: np.ndarray) -> np.ndarray:
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    return (
        (samples / np.float32(np.sqrt(power))).astype(np.float32) if power > 0 else samples.astype(np.float32)
    )


@lru_cache(maxsize=KEPT)
def _recording(path: str) -> np.ndarray:
    return decode(path)
