"""Raw audio bytes, cut anywhere, into float32 mono samples.

Encodings carry the names of the Deepgram streaming API: ``linear16`` (signed 16-bit little endian), ``linear32`` (also
``float32``: 32-bit little-endian floating point), ``mulaw`` and ``alaw`` (ITU-T G.711).
"""

from collections.abc import Callable

import numpy as np

from raysr.audio.pcm import LOUDEST
from raysr.errors import AudioError

MIN_RATE, MAX_RATE = 4_000, 192_000
MAX_CHANNELS = 8


class PcmReader:
    """Turns messages of raw audio into samples; a sample cut in two by a message boundary is put together again.

    Args:
        encoding: one of :data:`ENCODINGS`.
        channels: interleaved channels, mixed down to one by their mean.
    """

    def __init__(self, encoding: str, channels: int = 1) -> None:
        if encoding not in ENCODINGS:
            raise AudioError(
                f"encoding '{encoding}' is not supported; supported: {', '.join(sorted(ENCODINGS))}"
            )
        if not 1 <= channels <= MAX_CHANNELS:
            raise AudioError(f"channels should be between 1 and {MAX_CHANNELS}, not {channels}")
        width, self._decode = ENCODINGS[encoding]
        self._channels = channels
        self._frame_bytes = width * channels
        self._rest = b""

    def push(self, data: bytes) -> np.ndarray:
        """Return the samples (N,) float32 that ``data`` completes, full scale at [-1, 1].

        Raises:
            AudioError: floating-point samples that are not numbers, or not in this scale.
        """
        data = self._rest + data
        whole = len(data) - len(data) % self._frame_bytes
        self._rest = data[whole:]
        samples = self._decode(np.frombuffer(data[:whole], dtype=np.uint8))  # (N * channels,)
        peak = float(np.abs(samples).max(initial=0.0))
        if not peak <= LOUDEST:
            told = f"reach {peak:.0f}" if np.isfinite(peak) else "are not numbers (NaN or infinity)"
            raise AudioError(f"samples {told}; floating-point samples should lie in -1 … 1")
        if self._channels > 1:
            samples = samples.reshape(-1, self._channels).mean(axis=1, dtype=np.float32)
        return samples


def check_rate(rate: int) -> int:
    """Return ``rate`` in Hz, or raise AudioError when no microphone or telephone has it."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(f"sample_rate should be between {MIN_RATE} and {MAX_RATE} Hz, not {rate}")
    return rate


def _linear16(raw: np.ndarray) -> np.ndarray:
    return raw.view("<i2").astype(np.float32) / 32768.0


def _float32(raw: np.ndarray) -> np.ndarray:
    return raw.view("<f4").astype(np.float32)


def _mulaw_table() -> np.ndarray:
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    magnitude = (((mantissa << 3) + 132) << exponent) - 132
    return np.where(code & 128, -magnitude, magnitude).astype(np.float32) / 32768.0


def _alaw_table() -> np.ndarray:
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    magnitude = np.where(
        exponent == 0,
        (mantissa << 4) + 8,
        ((mantissa << 4) + 264) << np.maximum(exponent, 1).astype(np.int32) - 1,
    )
    return np.where(code & 128, magnitude, -magnitude).astype(np.float32) / 32768.0


_MULAW, _ALAW = _mulaw_table(), _alaw_table()

ENCODINGS: dict[str, tuple[int, Callable[[np.ndarray], np.ndarray]]] = {
    "linear16": (2, _linear16),
    "linear32": (4, _float32),
    "float32": (4, _float32),
    "mulaw": (1, lambda raw: _MULAW[raw]),
    "alaw": (1, lambda raw: _ALAW[raw]),
}
