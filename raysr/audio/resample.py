"""Sample rate conversion, streaming: the output does not depend on how the input is cut."""

import math
from functools import lru_cache

import numpy as np

from raysr.errors import AudioError

ZERO_CROSSINGS = 6
ROLLOFF = 0.99
RATES = range(1000, 768_001)


class Resampler:
    """Windowed-sinc polyphase conversion of one stream.

    The kernel is Smith's bandlimited interpolation with a Hann window, six zero crossings and a roll-off
    of 0.99, as in ``torchaudio.functional.resample`` (https://ccrma.stanford.edu/~jos/resample). Every output
    sample is summed tap by tap in the same order, so any split of the input gives the same bits.
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        """Convert from ``source_rate`` to ``target_rate`` (Hz).

        Raises:
            AudioError: a rate outside 1000 … 768000 Hz.
        """
        for rate in (source_rate, target_rate):
            if int(rate) != rate or int(rate) not in RATES:
                raise AudioError(
                    f"a sample rate of {rate} Hz cannot be used: it should lie in 1000 … 768000 Hz"
                )
        common = math.gcd(int(source_rate), int(target_rate))
        self._step_in = int(source_rate) // common
        self._step_out = int(target_rate) // common
        self._taps, self._width = _polyphase(self._step_in, self._step_out)  # (K, phases)
        self._buffer: np.ndarray
        self._received: int
        self._start()

    def before(self, first: int) -> tuple[int, int]:
        """Return where to begin reading, so that the output from sample ``first`` on is as in the whole.

        The first number counts input samples, the second the output samples to throw away.
        """
        groups = max(0, first * self._step_in // self._step_out - self._width) // self._step_in
        return groups * self._step_in, first - groups * self._step_out

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take samples (N,) and return every output sample (M,) float32 that they complete."""
        samples = np.asarray(samples, dtype=np.float32)
        if self._step_in == self._step_out:
            return samples
        self._received += len(samples)
        self._buffer = np.concatenate([self._buffer, samples])
        complete = self._received - self._width - 1  # inputs that have all their right-hand neighbours
        return self._emit(max(0, -(-complete * self._step_out // self._step_in)))

    def flush(self) -> np.ndarray:
        """Return the last samples, as if silence followed, and start afresh."""
        if self._step_in == self._step_out:
            return np.zeros(0, np.float32)
        self._buffer = np.concatenate([self._buffer, np.zeros(self._width + 1, np.float32)])
        tail = self._emit(-(-self._received * self._step_out // self._step_in))
        self._start()
        return tail

    def _start(self) -> None:
        self._buffer = np.zeros(self._width, np.float32)
        self._origin = -self._width  # the input position of buffer[0]
        self._received = 0
        self._emitted = 0

    def _emit(self, end: int) -> np.ndarray:
        """Compute the output samples up to ``end``, and forget the input that no later one needs."""
        count = end - self._emitted
        if count <= 0:
            return np.zeros(0, np.float32)
        position = np.arange(self._emitted, end, dtype=np.int64) * self._step_in
        first = position // self._step_out - self._width - self._origin  # (M,)
        phase = np.arange(self._emitted, end, dtype=np.int64) % self._step_out  # (M,)
        output = np.zeros(count, np.float32)
        for offset, taps in enumerate(self._taps):
            output += self._buffer.take(first + offset) * (taps[0] if len(taps) == 1 else taps.take(phase))
        self._emitted = end
        keep = end * self._step_in // self._step_out - self._width - self._origin
        self._buffer = self._buffer[keep:].copy()
        self._origin += keep
        return output


def resample(samples: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """Convert a whole signal (N,) to ceil(N · target / source) samples, float32."""
    resampler = Resampler(source_rate, target_rate)
    return np.concatenate([resampler.push(samples), resampler.flush()])


@lru_cache(maxsize=32)
def _polyphase(step_in: int, step_out: int) -> tuple[np.ndarray, int]:
    """Return the taps (K, step_out) of every output phase, and the reach to the left in input samples."""
    if step_in == step_out:
        return np.ones((1, 1), np.float32), 0
    cutoff = min(step_in, step_out) * ROLLOFF
    width = math.ceil(ZERO_CROSSINGS * step_in / cutoff)
    phases = np.arange(step_out, dtype=np.int64)
    fraction = (phases * step_in % step_out) / step_out  # of an input sample, (P,)
    distance = np.arange(-width, width + 2)[:, None] - fraction  # in input samples, (K, P)
    time = np.clip(distance / step_in * cutoff, -ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = np.cos(time * np.pi / ZERO_CROSSINGS / 2) ** 2
    return (np.sinc(time) * window * cutoff / step_in).astype(np.float32), width
