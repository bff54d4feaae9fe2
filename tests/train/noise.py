"""Utterances of noise on disk, as files and as rows of a shard, and readers that tell what they were asked."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from torch import Tensor

from raysr.audio.encode import flac_bytes, wav_bytes
from raysr.audio.fbank import FbankConfig
from raysr.corpus.manifest import open_manifest
from raysr.corpus.shards import write_shards
from raysr.corpus.utterance import Utterance
from raysr.train.reading.reader import FeatureReader
from raysr.train.reading.stream import Streamed

CONFIG = FbankConfig()


def noise(seconds: float, seed: int = 0, rate: int = 16000) -> np.ndarray:
    """Return noise (N,) float32."""
    return np.random.default_rng(seed).normal(scale=0.1, size=round(seconds * rate)).astype(np.float32)


def files(folder: Path, count: int, seconds: float = 0.3) -> list[Utterance]:
    """Write WAV files, the nth of them n / 100 s longer than the first, and return their utterances."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for n in range(count):
        path, duration = folder / f"{n}.wav", seconds + n / 100
        path.write_bytes(wav_bytes(noise(duration, n)))
        found.append(Utterance(f"u{n}", str(path), duration, text=f"text {n}"))
    return found


def rows(folder: Path, count: int, seconds: float = 0.3) -> list[Utterance]:
    """Write a shard of FLAC rows and return its utterances."""
    items = (
        (Utterance(f"r{n}", "", seconds, text="row"), flac_bytes(noise(seconds, n))) for n in range(count)
    )
    write_shards(folder, items)
    return list(open_manifest(folder))


class Counting:
    """A streamed reader that counts how often each utterance was computed."""

    def __init__(self) -> None:
        self.config = CONFIG
        self.computed: Counter[str] = Counter()
        self._reader = Streamed(CONFIG)

    def frames(self, utterance: Utterance) -> int:
        return self._reader.frames(utterance)

    def get(self, utterance: Utterance) -> Tensor:
        self.computed[utterance.id] += 1
        return self._reader.get(utterance)


def read(reader: FeatureReader, utterances: Iterable[Utterance]) -> list[Tensor]:
    return [reader.get(utterance) for utterance in utterances]
