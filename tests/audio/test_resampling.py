"""Resampling equals the formula it is from, and does not depend on how a stream is cut."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.audio.resample import Resampler, resample
from raysr.errors import AudioError

RATES = [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 44056]


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)


def smith(signal: np.ndarray, source: int, target: int) -> np.ndarray:
    """Return the sum over every input sample of Smith's windowed sinc, in double precision.

    J. O. Smith, Digital Audio Resampling; six zero crossings, a Hann window and a roll-off of 0.99.
    """
    cutoff = 0.99 * min(source, target)  # twice the highest frequency kept, in Hz
    inputs, outputs = (
        np.arange(len(signal)) / source,
        np.arange(math.ceil(len(signal) * target / source)) / target,
    )
    crossings = (inputs - outputs[:, None]) * cutoff  # (outputs, inputs)
    window = np.where(np.abs(crossings) < 6, np.cos(np.pi * crossings / 12) ** 2, 0)
    return (np.sinc(crossings) * window) @ signal.astype(np.float64) * cutoff / source


@pytest.mark.parametrize("source", RATES)
@pytest.mark.parametrize("target", [8000, 16000])
@pytest.mark.parametrize("samples", [1, 2, 37, 2000])
def test_equals_the_formula_to_the_last_sample(source: int, target: int, samples: int) -> None:
    signal = noise(samples)
    expected = signal if source == target else smith(signal, source, target)
    actual = resample(signal, source, target)
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() < 1e-5


@given(
    rates=st.tuples(st.sampled_from(RATES), st.sampled_from(RATES)),
    pieces=st.lists(st.integers(0, 400), min_size=1, max_size=12),
)
def test_any_split_gives_the_same_bits(rates: tuple[int, int], pieces: list[int]) -> None:
    signal = noise(sum(pieces))
    resampler = Resampler(*rates)
    parts = [resampler.push(part) for part in np.split(signal, np.cumsum(pieces)[:-1])]
    whole = resample(signal, *rates)
    assert np.array_equal(np.concatenate([*parts, resampler.flush()]), whole)
    assert len(whole) == math.ceil(len(signal) * rates[1] / rates[0])


def test_flush_starts_afresh() -> None:
    resampler, signal = Resampler(44100, 16000), noise(1000)
    first = [resampler.push(signal), resampler.flush()]
    second = [resampler.push(signal), resampler.flush()]
    assert np.array_equal(np.concatenate(first), np.concatenate(second))


def test_memory_is_bounded_and_output_prompt() -> None:
    resampler = Resampler(48000, 16000)
    received = 0
    for _ in range(200):
        received += len(resampler.push(noise(480)))
    assert received > 200 * 160 - 20
    assert len(resampler._buffer) < 100


@given(first=st.integers(0, 20000), rates=st.tuples(st.sampled_from(RATES), st.sampled_from(RATES)))
def test_reading_may_begin_late_without_changing_a_bit(first: int, rates: tuple[int, int]) -> None:
    signal = noise(rates[0])
    whole = resample(signal, *rates)
    resampler = Resampler(*rates)
    begin, skip = resampler.before(first)
    late = np.concatenate([resampler.push(signal[begin:]), resampler.flush()])[skip:]
    assert np.array_equal(late, whole[first:])


def test_a_tone_keeps_its_shape_and_aliases_vanish() -> None:
    time = np.arange(48000) / 48000
    kept = resample(np.sin(2 * np.pi * 1000 * time), 48000, 16000)[200:-200]
    assert np.abs(kept - np.sin(2 * np.pi * 1000 * np.arange(200, 15800) / 16000)).max() < 5e-3
    gone = resample(np.sin(2 * np.pi * 15000 * time), 48000, 16000)[200:-200]
    assert np.abs(gone).max() < 5e-3


@pytest.mark.parametrize("rate", [0, -16000, 1, 999, 10**9, 16000.5])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(AudioError, match=r"should lie in 1000"):
        Resampler(rate, 16000)  # type: ignore[arg-type]
