"""Many lines by many voices: the engines side by side, each in a process of its own; then trim and level."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from types import TracebackType
from typing import Self

import numpy as np

from raysr.audio.mix import active_power
from raysr.corpus.synthesis.engines import SAMPLE_RATE, Engine, Line, open_engine

PAUSE = 0.12  # seconds of silence kept before and after the words


class Speakers:
    """Says lines; a process an engine, because espeak-ng's state is the process's. A context manager."""

    def __init__(self) -> None:
        self._engines: dict[str, ProcessPoolExecutor] = {}

    def speak(self, lines: Sequence[Line]) -> list[np.ndarray]:
        """Return the waveform of every line, float32 at 16 kHz; raise :class:`CorpusError` as engines do."""
        spoken: dict[int, np.ndarray] = {}
        pending = []
        for engine in sorted({line.voice.engine for line in lines}):
            numbers = [n for n, line in enumerate(lines) if line.voice.engine == engine]
            process = self._engines.setdefault(engine, ProcessPoolExecutor(1, get_context("spawn")))
            pending.append((numbers, process.submit(_speak, engine, [lines[n] for n in numbers])))
        for numbers, waveforms in pending:
            spoken.update(zip(numbers, waveforms.result(), strict=True))
        return [spoken[n] for n in range(len(lines))]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._engines.values():
            process.shutdown(cancel_futures=True)


def trimmed(samples: np.ndarray) -> np.ndarray:
    """Return the words with a short pause around them."""
    loud = np.flatnonzero(np.abs(samples) > 0.015 * np.abs(samples).max())
    pause = round(PAUSE * SAMPLE_RATE)
    inside = samples[max(0, loud[0] - pause) : loud[-1] + pause]
    before, after = max(0, pause - loud[0]), max(0, loud[-1] + pause - len(samples))
    return np.pad(inside, (before, after))


def levelled(samples: np.ndarray, level_db: float) -> np.ndarray:
    """Return samples whose active speech lies at ``level_db`` (full scale is 0), or lower if that clips."""
    gain = 10 ** (level_db / 20) / np.sqrt(active_power(samples))
    return (samples * min(gain, 0.95 / np.abs(samples).max())).astype(np.float32)


def _speak(engine: str, lines: Sequence[Line]) -> list[np.ndarray]:
    return list(_open(engine).speak(lines))


@cache
def _open(engine: str) -> Engine:
    return open_engine(engine)
