"""Room impulse responses: a direct path and an exponentially decaying diffuse tail."""

import numpy as np

SAMPLE_RATE = 16000
_SPEED_OF_SOUND = 343.0  # m/s
_BANDS = ((0.0, 500.0, 1.15), (500.0, 2500.0, 1.0), (2500.0, 8001.0, 0.65))  # Hz, Hz, share of the RT60


def impulse_response(
    rt60: float, distance: float, volume: float, generator: np.random.Generator
) -> np.ndarray:
    """Return the response (M,) of a room, the direct path first and of height one.

    The tail is noise that decays by 60 dB in ``rt60`` (Polack's model), faster at high frequencies, as air
    and furniture make it. Its energy against the direct path follows from how many critical distances away
    the speaker is: D = 0.057 √(volume / rt60) (Kuttruff, Room Acoustics).

    Args:
        rt60: reverberation time in seconds.
        distance: from speaker to microphone in metres.
        volume: of the room in cubic metres.
        generator: where the tail comes from.
    """
    length = max(2, int(rt60 * SAMPLE_RATE))
    spectrum = np.fft.rfft(generator.standard_normal(length, dtype=np.float32))
    frequency = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    time = np.arange(length, dtype=np.float32) / SAMPLE_RATE
    tail = np.zeros(length, np.float32)
    for low, high, share in _BANDS:
        band = np.where((frequency >= low) & (frequency < high), spectrum, 0)
        tail += np.fft.irfft(band, length).astype(np.float32) * np.exp(-6.9078 / (share * rt60) * time)
    first_reflection = min(length - 1, max(1, int(0.5 * volume ** (1 / 3) / _SPEED_OF_SOUND * SAMPLE_RATE)))
    tail[:first_reflection] = 0
    critical = 0.057 * np.sqrt(volume / rt60)
    tail *= distance / critical / np.sqrt(max(float(tail @ tail), 1e-20))
    tail[0] = 1
    return tail


def convolve(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Return ``samples`` (N,) convolved with ``response``, cut to (N,)."""
    size = _fast_size(len(samples) + len(response) - 1)
    product = np.fft.rfft(samples, size) * np.fft.rfft(response, size)
    return np.fft.irfft(product, size)[: len(samples)].astype(np.float32)


def _fast_size(length: int) -> int:
    """Return the smallest of 2^n, 3 · 2^n and 5 · 2^n that holds ``length``: sizes with a quick FFT."""
    power = 1 << max(3, (length - 1).bit_length())
    return min(size for size in (power, power * 5 // 8, power * 3 // 4) if size >= length)
