"""Decoded frames as mono samples."""

import av
import numpy as np

from raysr.errors import AudioError

# Headroom for hot floating-point masters; beyond it the samples are integers that were stored as floats.
LOUDEST = 32.0


def mono(frame: av.AudioFrame, name: str, channel: int | None = None) -> np.ndarray:
    """Return one of a frame's channels, or the mean of all, (N,) float32 with full scale at [-1, 1].

    Raises:
        AudioError: floating-point samples that are not numbers, or not in this scale.
    """
    samples = frame.to_ndarray()
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        samples = samples.reshape(-1, channels).T  # (C, N)
    scaled = _to_float(samples)
    if np.issubdtype(samples.dtype, np.floating):
        _check(scaled, name)
    if channel is not None:
        return scaled[channel]
    return scaled[0] if channels == 1 else scaled.mean(axis=0)


def _to_float(samples: np.ndarray) -> np.ndarray:
    if np.issubdtype(samples.dtype, np.floating):
        return samples.astype(np.float32)
    bits = samples.dtype.itemsize * 8
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    return samples.astype(np.float32) / np.float32(2 ** (bits - 1))


def _check(samples: np.ndarray, name: str) -> None:
    peak = float(np.abs(samples).max(initial=0.0))
    if not np.isfinite(peak):
        raise AudioError(f"{name}: holds samples that are not numbers (NaN or infinite); export it again")
    if peak > LOUDEST:
        raise AudioError(f"{name}: floating-point samples reach {peak:.0f}; they should lie in -1 … 1")
