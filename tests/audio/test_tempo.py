"""Speed and tempo: lengths, pitches and the places of what is said are those of the factor."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.audio.tempo import change_speed, change_tempo
from raysr.errors import AudioError

RATE = 16000
factors = st.integers(50, 200).map(lambda hundredths: hundredths / 100)


def tone(seconds: float, hz: float = 500.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def pitch(samples: np.ndarray) -> float:
    """Return the loudest frequency in Hz, of the middle half."""
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 1 << 17))
    return float(spectrum.argmax() * RATE / (1 << 17))


def bursts(*at: float) -> np.ndarray:
    """Return two seconds of faint noise with a burst of tone at each second of ``at``."""
    samples = 1e-4 * np.random.default_rng(0).standard_normal(2 * RATE)
    for second in at:
        first = round(second * RATE)
        samples[first : first + 800] += tone(0.05, 1000.0) * np.hanning(800)
    return samples.astype(np.float32)


def loud_at(samples: np.ndarray, count: int) -> list[float]:
    """Return the seconds at which the loudest bursts have their middle."""
    power = np.convolve(samples.astype(np.float64) ** 2, np.hanning(801), mode="same")
    found = []
    for _ in range(count):
        place = int(power.argmax())
        found.append(place / RATE)
        power[max(0, place - 2400) : place + 2400] = 0
    return sorted(found)


@given(st.integers(0, 20_000), factors)
@settings(max_examples=40)
def test_lengths_are_those_of_the_factor(length: int, factor: float) -> None:
    samples = tone(length / RATE)
    assert abs(len(change_speed(samples, factor)) - length / factor) <= 1
    assert len(change_tempo(samples, factor)) == round(length / factor)


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.1, 1.37])
def test_speed_moves_the_pitch_and_tempo_does_not(factor: float) -> None:
    samples = tone(2.0)
    assert pitch(change_speed(samples, factor)) == pytest.approx(500 * factor, rel=0.002)
    assert pitch(change_tempo(samples, factor)) == pytest.approx(500, rel=0.01)


@pytest.mark.parametrize("factor", [0.8, 0.93, 1.1, 1.25])
def test_what_is_said_moves_with_the_factor(factor: float) -> None:
    said = (0.3, 0.9, 1.6)
    samples = bursts(*said)
    middles = [(second + 0.025) / factor for second in said]
    assert loud_at(change_speed(samples, factor), 3) == pytest.approx(middles, abs=0.002)
    assert loud_at(change_tempo(samples, factor), 3) == pytest.approx(middles, abs=0.03)


def test_a_factor_of_one_changes_nothing() -> None:
    samples = bursts(0.5)
    assert np.array_equal(change_speed(samples, 1.0), samples)
    assert np.array_equal(change_tempo(samples, 1.0), samples)


@pytest.mark.parametrize("factor", [0.0, 0.4, 2.5, float("nan")])
def test_other_factors_are_refused(factor: float) -> None:
    for change in (change_speed, change_tempo):
        with pytest.raises(AudioError, match="it should lie in"):
            change(tone(0.1), factor)
