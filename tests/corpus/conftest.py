"""Small corpora on disk: noise bursts, as WAV files and as shards."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raysr.audio.encode import flac_bytes
from raysr.audio.files import wav_bytes
from raysr.corpus.shards import write_shards
from raysr.corpus.utterance import Utterance


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Return noise at 16 kHz, float32 (N,)."""
    samples = np.random.default_rng(seed).normal(scale=0.1, size=round(seconds * 16000))
    return samples.astype(np.float32)


@pytest.fixture
def wav(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a WAV file of noise below ``tmp_path``."""

    def write(name: str, seconds: float = 0.5, seed: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wav_bytes(noise(seconds, seed)))
        return path

    return write


@pytest.fixture
def shard(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a folder with one shard of FLAC utterances."""

    def write(count: int, seconds: float = 0.3, name: str = "shards") -> Path:
        items = (
            (Utterance(f"u{n}", "", seconds, text=f"text {n}"), flac_bytes(noise(seconds, n)))
            for n in range(count)
        )
        write_shards(tmp_path / name, items)
        return tmp_path / name

    return write
