"""Mixing: what a recipe asks for is what comes out, always the same, never clipped."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.audio.encode import write_wav
from raysr.audio.mix import active_power, apply_mix, coloured_noise
from raysr.audio.music import generate_music
from raysr.audio.rooms import convolve, impulse_response
from raysr.errors import AudioError

RATE = 16000
FULL = {
    "seed": 3,
    "room": {"rt60": 0.3, "distance": 1.5},
    "noise": {"snr_db": 12.0, "colour": "brown"},
    "music": {"snr_db": 8.0},
    "gain_db": -2.0,
}


def tone(seconds: float = 2.0, amplitude: float = 0.05) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * 440 * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def snr(speech_power: float, added: np.ndarray) -> float:
    return float(10 * np.log10(speech_power / np.mean(added.astype(np.float64) ** 2)))


def decay_time(response: np.ndarray, low: float, high: float) -> float:
    """RT60 of a band by Schroeder's backward integration, from the slope between -5 and -25 dB (ISO 3382)."""
    size = 4 * len(response)  # the filter rings, and must not ring round into the tail
    spectrum = np.fft.rfft(response[1:], size)
    frequency = np.fft.rfftfreq(size, 1 / RATE)
    band = np.fft.irfft(np.where((frequency > low) & (frequency < high), spectrum, 0), size)[: len(response)]
    energy = np.cumsum(band[::-1] ** 2)[::-1]
    level = 10 * np.log10(energy / energy[0] + 1e-12)
    inside = np.flatnonzero((level < -5) & (level > -25))
    slope = np.polyfit(inside / RATE, level[inside], 1)[0]
    return float(-60 / slope)


@given(st.integers(0, 2**31), st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_the_seed_decides_every_bit(seed, other):
    speech = tone(0.5)
    mixed = apply_mix(speech, {**FULL, "seed": seed})
    assert np.array_equal(mixed, apply_mix(speech, {**FULL, "seed": seed}))
    assert np.array_equal(mixed, apply_mix(speech, {**FULL, "seed": other})) == (seed == other)


@given(st.sampled_from(["noise", "music"]), st.floats(0, 30), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_the_ratio_asked_for_is_reached(part, decibel, seed):
    speech = tone()
    mixed = apply_mix(speech, {"seed": seed, part: {"snr_db": decibel}})
    assert snr(0.05**2 / 2, mixed - speech) == pytest.approx(decibel, abs=0.05)


def test_pauses_do_not_count_as_speech():
    speech = np.concatenate([np.zeros(2 * RATE, np.float32), tone(2.0)])
    mixed = apply_mix(speech, {"seed": 1, "music": {"snr_db": 10}})
    assert snr(0.05**2 / 2, mixed - speech) == pytest.approx(10, abs=0.05)


def test_adding_music_leaves_the_noise_as_it_was():
    speech = tone(amplitude=0.02)
    noise, music = {"noise": {"snr_db": 10}}, {"music": {"snr_db": 10}}
    both = apply_mix(speech, noise | music)
    parts = apply_mix(speech, noise) + apply_mix(speech, music) - speech
    np.testing.assert_allclose(both, parts, atol=1e-6)


@given(st.integers(0, 4000), st.floats(1e-6, 4.0), st.floats(-40, 40), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_any_input_keeps_its_length_and_never_clips(length, amplitude, gain, seed):
    speech = np.random.default_rng(seed).uniform(-amplitude, amplitude, length).astype(np.float32)
    mixed = apply_mix(speech, {**FULL, "seed": seed, "gain_db": gain})
    assert mixed.shape == speech.shape
    assert mixed.dtype == np.float32
    assert np.isfinite(mixed).all()
    assert np.abs(mixed).max(initial=0) <= 1.0


def test_silence_stays_silence():
    assert not apply_mix(np.zeros(RATE, np.float32), FULL).any()


@given(st.floats(-30, 10))
@settings(max_examples=10, deadline=None)
def test_gain_is_exact_while_nothing_clips(gain):
    expected = tone(0.1) * 10 ** (gain / 20)
    np.testing.assert_allclose(apply_mix(tone(0.1), {"gain_db": gain}), expected, rtol=1e-5)


def test_a_room_keeps_the_level_of_speech():
    speech = tone() * (np.arange(2 * RATE) // 3200 % 2).astype(np.float32)
    wet = apply_mix(speech, {"room": {"rt60": 0.5, "distance": 3.0}})
    assert active_power(wet) == pytest.approx(active_power(speech), rel=1e-3)
    assert not np.allclose(wet, speech, atol=1e-3)


@pytest.mark.parametrize("rt60", [0.2, 0.5, 1.0])
def test_a_room_decays_as_asked_and_faster_at_high_frequencies(rt60):
    response = impulse_response(rt60, 5.0, 60.0, np.random.default_rng(0))
    assert decay_time(response, 600, 2400) == pytest.approx(rt60, rel=0.12)
    assert decay_time(response, 3000, 7900) == pytest.approx(0.65 * rt60, rel=0.12)


@given(st.floats(0.1, 1.0), st.floats(0.2, 5.0), st.floats(20, 300))
@settings(max_examples=20, deadline=None)
def test_reverberant_energy_follows_the_critical_distance(rt60, distance, volume):
    response = impulse_response(rt60, distance, volume, np.random.default_rng(0)).astype(np.float64)
    critical = 0.057 * np.sqrt(volume / rt60)
    assert response[0] == 1
    assert np.sum(response[1:] ** 2) == pytest.approx((distance / critical) ** 2, rel=1e-3)


@given(st.integers(1, 300), st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_convolution_equals_the_sum_by_hand(samples, taps):
    generator = np.random.default_rng(samples + taps)
    x, h = generator.standard_normal(samples), generator.standard_normal(taps)
    np.testing.assert_allclose(convolve(x, h), np.convolve(x, h)[:samples], atol=1e-4)


@pytest.mark.parametrize(("colour", "slope"), [("white", 0.0), ("pink", -1.0), ("brown", -2.0)])
def test_noise_has_the_slope_of_its_colour(colour, slope):
    noise = coloured_noise(1 << 18, colour, np.random.default_rng(0))
    power = (np.abs(np.fft.rfft(noise.reshape(-1, 2048))) ** 2).mean(axis=0)
    frequency = np.fft.rfftfreq(2048, 1 / RATE)
    inside = (frequency > 200) & (frequency < 6000)
    fitted = np.polyfit(np.log10(frequency[inside]), np.log10(power[inside]), 1)[0]
    assert fitted == pytest.approx(slope, abs=0.1)


def test_music_is_broad_and_moves_and_differs_by_seed():
    first, second = (generate_music(10 * RATE, np.random.default_rng(seed)) for seed in (1, 2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2
    for music in (first, second):
        levels = 10 * np.log10((music[: len(music) // 320 * 320].reshape(-1, 320) ** 2).mean(axis=1) + 1e-9)
        assert np.percentile(levels, 95) - np.percentile(levels, 5) > 6
        spectrum = np.abs(np.fft.rfft(music)) ** 2
        frequency = np.fft.rfftfreq(len(music), 1 / RATE)
        shares = [spectrum[(frequency >= a) & (frequency < b)].sum() / spectrum.sum() for a, b in BANDS]
        assert min(shares) > 0.005


BANDS = ((50, 250), (250, 1000), (1000, 3000), (3000, 8000))


def test_a_recording_can_be_the_music(tmp_path):
    recording = np.random.default_rng(0).uniform(-0.3, 0.3, RATE // 2).astype(np.float32)
    write_wav(tmp_path / "band.wav", recording)
    speech = tone()
    recipe = {"seed": 5, "music": {"snr_db": 6, "file": str(tmp_path / "band.wav")}}
    added = apply_mix(speech, recipe) - speech
    assert snr(0.05**2 / 2, added) == pytest.approx(6, abs=0.05)
    np.testing.assert_allclose(added[: RATE // 2], added[RATE // 2 : RATE], atol=1e-6)


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ({"musik": {"snr_db": 1}}, "did you mean 'music'"),
        ({"music": {}}, "'music.snr_db' is required"),
        ({"noise": {"snr_db": 3, "colour": "mauve"}}, "noise.colour"),
        ({"room": {"rt60": 0}}, "room.rt60"),
        ({"music": {"snr_db": 3, "file": "/no/such/band.wav"}}, "/no/such/band.wav"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(recipe, told):
    with pytest.raises(AudioError, match=told):
        apply_mix(tone(0.1), recipe)
