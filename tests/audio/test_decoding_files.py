"""Every container becomes the same 16 kHz mono samples; segments are exact; memory and length are bounded."""

import functools
import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.audio.encode import flac_below, flac_bytes
from raysr.audio.files import decode, decode_blocks, encode_opus, probe, wav_bytes, write_wav
from raysr.audio.resample import resample
from raysr.errors import AudioError

LOSSLESS = {"wav", "s24.wav", "f32.wav", "f64.wav", "aiff", "flac", "sln", "sln16", "u8.wav"}
FORMS = sorted([*LOSSLESS, "mp3", "opus", "webm", "m4a", "aac", "g722", "ulaw", "alaw"])


def similarity(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the best correlation over shifts of up to 0.1 s: encoders may delay."""
    size = min(len(actual), len(expected))
    spectra = np.fft.rfft(actual[:size], 2 * size) * np.conj(np.fft.rfft(expected[:size], 2 * size))
    correlation = np.fft.irfft(spectra)
    best = max(correlation[:1600].max(), correlation[-1600:].max())
    return float(best / np.linalg.norm(actual[:size]) / np.linalg.norm(expected[:size]))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_back_the_sound(
    form: str, encoded: dict[str, bytes], speechlike: np.ndarray
) -> None:
    samples = decode(encoded[form], name=f"tone.{form}")
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert abs(len(samples) - len(speechlike)) <= (1 if form in LOSSLESS else 1600)
    assert similarity(samples, speechlike) > (0.999 if form in LOSSLESS else 0.97)
    if form in LOSSLESS - {"u8.wav"}:
        assert np.abs(samples[200:31800] - speechlike[200:31800]).max() < 0.01


@pytest.mark.parametrize("form", FORMS)
def test_a_segment_is_a_slice_of_the_whole(form: str, encoded: dict[str, bytes]) -> None:
    name = f"tone.{form}"
    whole = decode(encoded[form], name=name)
    for start, duration in [(0.0, 0.5), (0.30001, 0.7), (1.2345, 0.0001), (1.5, 9.0), (1.9, None)]:
        first = round(start * 16000)
        last = None if duration is None else first + round(duration * 16000)
        segment = decode(encoded[form], start=start, duration=duration, name=name)
        assert np.array_equal(segment, whole[first:last])


@functools.cache
def half_a_minute(rate: int) -> tuple[bytes, np.ndarray]:
    """Return noise as a WAV file, and what resampling its rounded samples as one gives."""
    samples = np.random.default_rng(rate).uniform(-0.5, 0.5, rate * 30)
    rounded = np.rint(samples * 32768).astype(np.float32) / 32768
    return wav_bytes(samples, rate), resample(rounded, rate, 16000)


@given(start=st.floats(0, 29.9), duration=st.floats(0.001, 5), rate=st.sampled_from([8000, 16000, 44100]))
@settings(max_examples=30)
def test_sought_segments_are_exact_too(start: float, duration: float, rate: int) -> None:
    data, whole = half_a_minute(rate)
    first = round(start * 16000)
    segment = decode(data, start=start, duration=duration)
    assert np.array_equal(segment, whole[first : first + max(1, round(duration * 16000))])


def test_a_late_segment_of_a_long_file_is_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO(wav_bytes(np.zeros(16000 * 60)))
    taken = 0
    read = file.read

    def counted(size: int | None = -1) -> bytes:
        nonlocal taken
        data = read(size)
        taken += len(data)
        return data

    monkeypatch.setattr(file, "read", counted)
    decode(file, start=50, duration=0.1)
    assert taken < len(file.getbuffer()) / 4


def test_paths_bytes_files_and_pipes_are_read_alike(tmp_path: Path, encoded: dict[str, bytes]) -> None:
    data = encoded["m4a"]  # its index lies at the end, so a pipe must be spooled
    assert data.find(b"moov") > data.find(b"mdat")
    path = tmp_path / "tone.m4a"
    path.write_bytes(data)
    expected = decode(data)
    pipe = io.BytesIO(data)
    pipe.seekable = lambda: False  # type: ignore[method-assign]
    part_read = io.BytesIO(data)
    part_read.read(100)
    for source in (path, str(path), path.open("rb"), bytearray(data), pipe, part_read):
        assert np.array_equal(decode(source), expected)


def test_stereo_becomes_the_mean_of_its_channels() -> None:
    left, right = np.full(1600, 0.5), np.full(1600, -0.25)
    interleaved = wav_bytes(np.stack([left, right], axis=1).reshape(-1), 16000)
    stereo = interleaved[:22] + b"\x02" + interleaved[23:32] + b"\x04" + interleaved[33:]
    assert probe(stereo).channels == 2
    assert np.allclose(decode(stereo), 0.125)


def test_blocks_join_to_the_whole_in_bounded_memory(speechlike: np.ndarray) -> None:
    data = encode_opus(np.tile(speechlike, 20))
    tracemalloc.start()
    sizes = [len(block) for block in decode_blocks(data)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(sizes) == 20 * len(speechlike)
    assert max(sizes) <= 16000
    assert peak < 2e6 < 4 * sum(sizes)


def test_the_limit_is_checked_while_decoding(speechlike: np.ndarray) -> None:
    bomb = encode_opus(np.zeros(16000 * 60), bitrate=6000)
    received: list[np.ndarray] = []
    blocks = decode_blocks(bomb, max_seconds=5, name="bomb.ogg")
    with pytest.raises(AudioError, match=r"^bomb.ogg: longer than the limit of 5 s"):
        received.extend(blocks)
    assert sum(map(len, received)) <= 5 * 16000
    assert len(decode(bomb, start=10, duration=5, max_seconds=5)) == 5 * 16000
    assert len(decode(wav_bytes(speechlike), max_seconds=2)) == len(speechlike)


@pytest.mark.parametrize("form", FORMS)
def test_probe_tells_what_a_file_is(form: str, encoded: dict[str, bytes]) -> None:
    info = probe(encoded[form], name=f"tone.{form}")
    assert info.duration == pytest.approx(2.0, abs=0.15)
    assert info.sample_rate >= 8000
    assert info.channels in (1, 2)
    assert info.codec


@given(samples=st.integers(320, 20000), seed=st.integers(0, 9))
@settings(max_examples=40)
def test_opus_keeps_the_length_and_repeats_its_bytes(samples: int, seed: int) -> None:
    signal = np.random.default_rng(seed).uniform(-0.5, 0.5, samples)
    data = encode_opus(signal)
    assert len(decode(data)) == samples
    assert encode_opus(signal) == data


def test_opus_is_small_and_faithful(speechlike: np.ndarray) -> None:
    data = encode_opus(np.tile(speechlike, 5), bitrate=16000)
    assert len(data) < 1.3 * 10 * 16000 / 8
    assert similarity(decode(data), np.tile(speechlike, 5)) > 0.98
    with pytest.raises(AudioError, match="without samples"):
        encode_opus(np.zeros(0))


@pytest.mark.parametrize("seconds", [0.01, 1.0, 2.5, 60.0])
def test_flac_below_a_size_is_the_same_or_none(seconds: float, speechlike: np.ndarray) -> None:
    samples = np.resize(speechlike, round(16000 * seconds))
    whole = flac_bytes(samples)
    assert flac_below(samples, len(whole) + 1) == whole
    assert flac_below(samples, len(whole)) is None
    assert flac_below(samples, len(whole) / 10) is None
    heard = decode(whole)
    assert np.array_equal(heard, decode(wav_bytes(samples)))


def test_wav_is_written_to_the_bit_and_clipped(tmp_path: Path) -> None:
    samples = np.array([0, 0.5, -0.5, 1, -1, 3, -3, 1 / 32768], np.float32)
    write_wav(tmp_path / "a.wav", samples)
    expected = np.clip(samples, -1, 32767 / 32768)
    assert np.array_equal(decode(tmp_path / "a.wav"), expected)
    assert probe(tmp_path / "a.wav").duration == pytest.approx(8 / 16000)
