"""A large corpus that is cheap to make, and how much memory it takes to get through it."""

import io
import threading
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np

from raysr.corpus.shards import write_shards
from raysr.corpus.utterance import Utterance

RATE, CHANNELS, SECONDS = 48000, 2, (4.0, 16.0)
POOL_SECONDS = 60


def synthetic_corpus(folder: Path, size: int) -> None:
    """Write shards of 48 kHz stereo WAV, ``size`` bytes in all: stretches of noise, no two alike."""
    write_shards(folder, _recordings(size), rows_per_shard=256)


def _recordings(size: int) -> Iterator[tuple[Utterance, bytes]]:
    draws = np.random.default_rng(0)
    noise = (3000 * draws.standard_normal((POOL_SECONDS * RATE, CHANNELS))).clip(-32768, 32767).astype("<i2")
    number = 0
    while size > 0:
        count = round(RATE * draws.uniform(*SECONDS))
        start = draws.integers(len(noise) - count)
        data = _wav(noise[start : start + count])
        size -= len(data)
        yield Utterance(f"noise-{number:07d}", "", count / RATE, sample_rate=RATE), data
        number += 1


def _wav(samples: np.ndarray) -> bytes:
    output = io.BytesIO()
    with wave.open(output, "wb") as file:
        file.setparams((CHANNELS, 2, RATE, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return output.getvalue()


def peak_rss_mb() -> float:
    """Return the most memory that this process ever had resident, in MB (2²⁰ bytes)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise OSError("/proc/self/status tells no VmHWM")


class StoreWatch:
    """Asks a local cluster's object store every so often, for as long as the block runs.

    Attributes:
        peak: the most bytes that it held.
        spilled: bytes that it wrote to disk for want of room.
    """

    def __init__(self, every: float = 0.5) -> None:
        self.peak = self.spilled = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(every,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self, every: float) -> None:
        import ray
        from ray._private.internal_api import node_stats

        spilled_before = None
        while not self._over.wait(every):
            for node in ray.nodes():
                stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False).store_stats
                self.peak = max(self.peak, stats.object_store_bytes_used)
                if spilled_before is None:
                    spilled_before = stats.spilled_bytes_total
                self.spilled = stats.spilled_bytes_total - spilled_before
