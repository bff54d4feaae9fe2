"""Bands, clipping, codecs and lost packets do what their definitions say, and keep every sample in its place."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raysr.audio.channel import Codec, band_pass, clip, lose_packets, through_codec
from raysr.errors import AudioError

RATE = 16000
CODECS: tuple[Codec, ...] = ("alaw", "mulaw", "gsm", "opus", "mp3")


def tone(hz: float, seconds: float = 1.0, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def level_db(samples: np.ndarray) -> float:
    middle = samples[len(samples) // 4 : -len(samples) // 4].astype(np.float64)
    return float(10 * np.log10(np.mean(middle**2) + 1e-20))


def speechlike(seconds: float = 2.0, seed: int = 0) -> np.ndarray:
    """Return noise in a telephone's band, loud and faint in turn as syllables are."""
    noise = np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * np.arange(len(noise)) / RATE)
    return (0.08 * band_pass(noise, 400, 3200) * syllables).astype(np.float32)


def delay(heard: np.ndarray, said: np.ndarray) -> int:
    """Return by how many samples one is behind the other, where they are most alike."""
    size = 1 << 17
    product = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(said, size)), size)
    place = int(product.argmax())
    return place if place < size // 2 else place - size


def test_a_band_lets_through_what_is_in_it() -> None:
    for hz, passes in ((100, False), (600, True), (2000, True), (3200, True), (3700, False), (6000, False)):
        lost = level_db(tone(hz)) - level_db(band_pass(tone(hz), 300, 3400))
        assert (abs(lost) < 0.1) if passes else (lost > 40), hz
    at_edge = level_db(tone(3400)) - level_db(band_pass(tone(3400), 0, 3400))
    assert at_edge == pytest.approx(6.02, abs=0.3)
    assert np.allclose(band_pass(tone(1000)), tone(1000), atol=1e-6)


@given(st.floats(0, 0.5), st.integers(0, 50))
@settings(max_examples=30)
def test_clipping_cuts_the_share_that_was_asked_for(share: float, seed: int) -> None:
    samples = np.random.default_rng(seed).normal(0, 0.1, 4000).astype(np.float32)
    cut = clip(samples, share)
    level = np.abs(cut).max()
    assert np.mean(np.abs(samples) > level) == pytest.approx(share, abs=1 / 1000)
    assert np.array_equal(cut[np.abs(samples) < level], samples[np.abs(samples) < level])


def test_digital_silence_is_no_speech_to_clip() -> None:
    samples = np.zeros(100 * RATE, np.float32)
    samples[RATE : 2 * RATE] = tone(440)
    cut = clip(samples, 0.05)
    assert 0.2 < np.abs(cut).max() < 0.3
    assert np.mean(np.abs(samples) > np.abs(cut).max()) == pytest.approx(0.05 / 100, rel=0.2)


def test_a_band_with_nothing_in_it_is_refused() -> None:
    with pytest.raises(AudioError, match="nothing in it"):
        band_pass(tone(440), 3400, 300)


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_keeps_every_sample_in_its_place(codec: Codec) -> None:
    said = speechlike()
    heard = through_codec(said, codec)
    assert len(heard) == len(said)
    assert abs(delay(heard, said)) <= (1 if codec in ("alaw", "mulaw", "gsm") else 8)
    assert np.corrcoef(heard, said)[0, 1] > 0.6
    assert not np.array_equal(heard, said)


@given(st.sampled_from(CODECS), st.integers(0, 3000))
@settings(max_examples=40)
def test_any_length_comes_back(codec: Codec, length: int) -> None:
    assert len(through_codec(speechlike()[:length], codec)) == length


@pytest.mark.parametrize("codec", ["alaw", "mulaw"])
def test_g711_is_the_standards_staircase(codec: Codec) -> None:
    """A constant comes out as one of its 256 levels, off by at most half a step of its segment (ITU-T G.711)."""
    for value in (0.001, 0.01, 0.1, 0.5, -0.3):
        heard = through_codec(np.full(8000, value, np.float32), codec)[2000:-2000]
        assert np.ptp(heard) < 2e-3 * abs(value), "the resampler ripples, the codec does not"
        assert abs(float(heard.mean()) - value) <= max(abs(value) / 2**5, 2.0 / 2**13) + 1e-3 * abs(value)


@pytest.mark.parametrize("codec", ["alaw", "mulaw"])
def test_g711_has_sixteen_levels_a_segment(codec: Codec) -> None:
    values = np.linspace(0.26, 0.48, 50, dtype=np.float32)  # of one segment of either law
    heard = [through_codec(np.full(4000, value), codec)[1000:3000].mean() for value in values]
    assert 12 <= len({round(float(level), 3) for level in heard}) <= 18


def test_telephone_codecs_have_a_telephones_band() -> None:
    for codec in ("alaw", "mulaw", "gsm"):
        assert level_db(through_codec(tone(5000), codec)) < level_db(tone(5000)) - 30
        assert level_db(through_codec(tone(1000), codec)) == pytest.approx(level_db(tone(1000)), abs=0.5)


def test_a_lower_bit_rate_loses_more() -> None:
    said = speechlike()
    errors = [np.mean((through_codec(said, "mp3", rate) - said) ** 2) for rate in (16000, 64000)]
    assert errors[0] > errors[1]


def test_what_is_no_codec_is_refused() -> None:
    with pytest.raises(AudioError, match=r"no codec 'mp4'.*alaw"):
        through_codec(speechlike(), "mp4")
    with pytest.raises(AudioError, match="one bit rate"):
        through_codec(speechlike(), "alaw", 64000)
    with pytest.raises(AudioError, match="lies in 6000"):
        through_codec(speechlike(), "opus", 320_000)


@pytest.mark.parametrize(("codec", "rates"), [("opus", (6000, 256_000)), ("mp3", (8000, 160_000))])
def test_a_codec_has_the_bit_rates_that_it_names(codec: Codec, rates: tuple[int, int]) -> None:
    for rate in rates:
        assert len(through_codec(speechlike(), codec, rate)) == len(speechlike())


def lost(samples: np.ndarray) -> np.ndarray:
    """Return which packets of 20 ms are silent."""
    return np.array([not packet.any() for packet in samples.reshape(-1, 320)])


@pytest.mark.parametrize(
    ("share", "burst", "found"),
    [
        (0.1, 1.2, 1.2),
        (0.1, 4.0, 4.0),
        (0.3, 2.0, 2.0),
        (0.9, 20.0, 20.0),
        (0.3, None, 1 / 0.7),
        (0.7, None, 1 / 0.3),
    ],
)
def test_packets_get_lost_as_often_and_in_such_bursts_as_asked(
    share: float, burst: float | None, found: float
) -> None:
    sent = np.ones(320 * 60_000, np.float32)
    gone = lost(lose_packets(sent, share, np.random.default_rng(1), burst, "silence"))
    assert gone.mean() == pytest.approx(share, rel=0.06)
    begun = np.flatnonzero(np.diff(gone.astype(int)) == 1)
    assert gone.sum() / len(begun) == pytest.approx(found, rel=0.06)


def test_a_lost_packet_is_the_last_one_again_ever_fainter() -> None:
    said = speechlike()
    silent = lost(lose_packets(said, 0.3, np.random.default_rng(2), 2.0, "silence"))
    heard = lose_packets(said, 0.3, np.random.default_rng(2), 2.0).reshape(-1, 320)
    packets = said.reshape(-1, 320)
    for number in range(1, len(packets)):
        expected = 0.5 * heard[number - 1] if silent[number] else packets[number]
        np.testing.assert_allclose(heard[number], expected, rtol=1e-6)
    assert silent[1:].any()


@given(st.integers(0, 5000), st.floats(0, 0.9), st.none() | st.floats(9, 20))
@example(3000, 0.9, 9.0)
@settings(max_examples=40)
def test_a_bad_line_keeps_length_and_peak(length: int, share: float, burst: float | None) -> None:
    said = speechlike()[:length]
    heard = lose_packets(said, share, np.random.default_rng(0), burst)
    assert len(heard) == length
    assert np.abs(heard).max(initial=0) <= np.abs(said).max(initial=0)


@pytest.mark.parametrize(
    ("share", "burst", "told"),
    [
        (1.0, None, "lost packets"),
        (-0.1, 1.0, "lost packets"),
        (0.1, 0.5, "1 or more"),
        (0.9, 2.0, "9 or more"),
    ],
)
def test_a_line_that_cannot_be_is_refused(share: float, burst: float | None, told: str) -> None:
    with pytest.raises(AudioError, match=told):
        lose_packets(speechlike(), share, np.random.default_rng(0), burst)
