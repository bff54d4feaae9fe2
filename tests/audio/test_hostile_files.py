"""What is not audio is refused in one line that names it; nothing of FFmpeg leaks, not even its log."""

import contextlib
import io
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from raysr.audio.files import decode, probe, wav_bytes
from raysr.errors import AudioError


def message(source: object, name: str | None = None, **options: float) -> str:
    with pytest.raises(AudioError) as caught:
        decode(source, name=name, **options)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    assert "Errno" not in text
    return text


def float_wav(samples: np.ndarray) -> bytes:
    data = samples.astype("<f4").tobytes()
    form = struct.pack("<HHIIHH", 3, 1, 16000, 64000, 4, 32)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


NOT_AUDIO = {
    "empty": (b"", "empty (0 bytes)"),
    "text": (b"this is not audio\n" * 50, "a text file, not audio"),
    "utf-8 cut in a letter": (("ä" * 5000).encode(), "a text file, not audio"),
    "m3u": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "a playlist, not audio"),
    "concat": (b"ffconcat version 1.0\nfile /etc/passwd\n", "a playlist, not audio"),
    "pls": (b"\xef\xbb\xbf[playlist]\nFile1=http://127.0.0.1/\n", "a playlist, not audio"),
    "dash": (b"<?xml version='1.0'?><MPD></MPD>", "a playlist, not audio"),
    "noise": (random.Random(1).randbytes(5000), "not audio that can be read"),
    "zip": (b"PK\x03\x04" + random.Random(2).randbytes(500), "not audio that can be read"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(500), "not audio that can be read"),
    "a bare RIFF header": (b"RIFF\x00\x00\x00\x00WAVE", "not audio that can be read"),
    "no samples": (wav_bytes(np.zeros(0)), "the file holds no samples"),
    "NaN": (float_wav(np.array([0, 0.1, np.nan, 0])), "not numbers"),
    "infinity": (float_wav(np.array([0, -np.inf])), "not numbers"),
    "integers in floats": (float_wav(np.array([0, 9000.0])), "samples reach 9000"),
}


@pytest.mark.parametrize("case", NOT_AUDIO)
def test_what_is_not_audio_is_named_and_explained(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    data, expected = NOT_AUDIO[case]
    text = message(data, name="talk.wav")
    assert text.startswith("talk.wav: ")
    assert expected in text
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    assert message(tmp_path / "gone.wav") == f"{tmp_path}/gone.wav: no such file"
    assert "a folder" in message(tmp_path)
    assert message("http://127.0.0.1/talk.wav") == "http://127.0.0.1/talk.wav: no such file"
    assert "null byte" in message("a\0b.wav")
    assert message(b"", name="two\nlines.wav").startswith("'two\\nlines.wav': ")


def test_a_file_object_that_fails_is_named() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    assert message(Broken(), name="disk.wav") == "disk.wav: cannot be read: Input/output error"


def test_a_playlist_in_disguise_opens_nothing(tmp_path: Path, wav: bytes) -> None:
    (tmp_path / "secret.wav").write_bytes(wav)
    playlist = tmp_path / "list.wav"
    # control characters keep it from looking like text, so that FFmpeg's probe gets to see it
    playlist.write_bytes(f"\x01\n#EXTM3U\n#EXTINF:1,\n{tmp_path}/secret.wav\n".encode())
    assert "not audio that can be read" in message(playlist)
    playlist.write_bytes(f"\x01\nffconcat version 1.0\nfile {tmp_path}/secret.wav\n".encode())
    assert "not audio that can be read" in message(playlist)


@pytest.mark.parametrize("form", ["wav", "f32.wav", "flac", "opus", "webm", "m4a"])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_truncated_file_is_refused(form: str, share: float, encoded: dict[str, bytes]) -> None:
    data = encoded[form]
    text = message(data[: int(len(data) * share)], name=f"cut.{form}")
    assert text.startswith(f"cut.{form}: ")
    assert any(word in text for word in ("truncated", "damaged", "not audio"))


def test_a_segment_before_the_cut_can_still_be_had(encoded: dict[str, bytes]) -> None:
    data = encoded["wav"]
    whole = decode(data)
    half = data[: len(data) // 2]
    assert np.array_equal(decode(half, start=0.1, duration=0.5), whole[1600:9600])
    assert "truncated after 1.0 s" in message(half, start=0.5)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_recorder_that_never_knew_its_length_is_read(size: int, wav: bytes, speechlike: np.ndarray) -> None:
    place = wav.index(b"data") + 4
    streamed = (
        wav[:4] + struct.pack("<I", 0xFFFFFFFF) + wav[8:place] + struct.pack("<I", size) + wav[place + 4 :]
    )
    assert len(decode(streamed)) == len(speechlike)


def test_rubbish_between_mp3_frames_is_skipped_but_not_much(encoded: dict[str, bytes]) -> None:
    data, rng = encoded["mp3"], random.Random(0)
    length = len(decode(data))
    assert abs(len(decode(data + b"TAG" + b"x" * 125)) - length) < 1600
    assert abs(len(decode(data + rng.randbytes(2000))) - length) < 3200
    holes = bytearray(data)
    for place in range(3000, len(data) - 500, 1250):
        holes[place : place + 300] = bytes(300)
    assert any(word in message(bytes(holes)) for word in ("damaged", "changes its sample rate"))


def test_headers_that_lie_are_refused() -> None:
    for channels, rate, bits in [(0, 16000, 16), (65535, 16000, 16), (1, 0, 16), (1, 1, 16), (1, 16000, 0)]:
        form = struct.pack("<HHIIHH", 1, channels, rate, rate * 2, 2, bits)
        data = b"RIFF\x24\x04\0\0WAVEfmt \x10\0\0\0" + form + b"data\0\4\0\0" + bytes(1024)
        assert message(data, name="lie.wav").startswith("lie.wav: ")


def test_one_sample_is_audio() -> None:
    assert decode(wav_bytes(np.array([0.5]))).tolist() == [0.5]


@pytest.mark.parametrize(
    ("start", "duration"), [(-1, 1), (float("nan"), 1), (0, 0), (0, -2), (0, float("nan")), (1e12, None)]
)
def test_impossible_segments_are_refused(start: float, duration: float | None, wav: bytes) -> None:
    with pytest.raises(AudioError, match="start should be ≥ 0 and duration > 0"):
        decode(wav, start=start, duration=duration)


@pytest.mark.parametrize("form", ["wav", "flac", "opus", "m4a", "g722"])
def test_a_segment_beyond_the_end_is_refused(form: str, encoded: dict[str, bytes]) -> None:
    assert "no audio at 50 s" in message(encoded[form], name=f"tone.{form}", start=50)


@pytest.mark.parametrize("form", ["wav", "f32.wav", "flac", "mp3", "opus", "webm", "m4a", "aac", "g722"])
def test_damaged_bytes_give_audio_or_one_line(
    form: str, encoded: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(form)
    for _ in range(40):
        data = bytearray(encoded[form])
        for _ in range(rng.choice((1, 3, 20))):
            data[rng.randrange(min(len(data), rng.choice((60, 400, len(data)))))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        with contextlib.suppress(AudioError):
            samples = decode(bytes(data), name=f"tone.{form}", max_seconds=60)
            assert len(samples)
            assert np.isfinite(samples).all()
    assert capfd.readouterr() == ("", "")


def test_probe_refuses_in_the_same_words() -> None:
    with pytest.raises(AudioError, match=r"^talk.wav: a text file, not audio"):
        probe(b"hello\n" * 10, name="talk.wav")
