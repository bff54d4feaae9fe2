import io

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.errors import AudioError
from raysr.stream.pcm import ENCODINGS, PcmReader, check_rate


def ffmpeg_decode(codec: str, data: bytes) -> np.ndarray:
    container = av.open(io.BytesIO(data), format=codec, options={"sample_rate": "8000"})
    frames = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]
    return np.concatenate(frames).astype(np.float32) / 32768.0


@pytest.mark.parametrize("encoding", ["mulaw", "alaw"])
def test_telephone_codes_decode_as_ffmpeg_does(encoding: str) -> None:
    every_code = bytes(range(256))
    np.testing.assert_array_equal(PcmReader(encoding).push(every_code), ffmpeg_decode(encoding, every_code))


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@given(data=st.data())
def test_any_cut_of_the_bytes_gives_the_same_samples(encoding: str, data: st.DataObject) -> None:
    channels = data.draw(st.integers(1, 3))
    pcm = np.random.default_rng(1).integers(-20000, 20000, 60).astype("<i2")
    raw = (pcm.astype("<f4") / 32768).tobytes() if ENCODINGS[encoding][0] == 4 else pcm.tobytes()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    reader = PcmReader(encoding, channels)
    pieces = [reader.push(raw[a:b]) for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    np.testing.assert_array_equal(np.concatenate(pieces), PcmReader(encoding, channels).push(raw))


def test_linear16_and_linear32_mean_the_same_samples() -> None:
    pcm = np.array([-32768, -1, 0, 1, 32767], dtype="<i2")
    as_float = PcmReader("linear32").push((pcm / np.float32(32768)).astype("<f4").tobytes())
    np.testing.assert_array_equal(PcmReader("linear16").push(pcm.tobytes()), as_float)


def test_two_channels_are_mixed_by_their_mean() -> None:
    frames = np.array([[0.5, -0.5], [0.25, 0.75]], dtype="<f4")
    np.testing.assert_array_equal(PcmReader("float32", 2).push(frames.tobytes()), [0.0, 0.5])


def test_what_is_not_audio_is_refused_by_name() -> None:
    with pytest.raises(AudioError, match="NaN"):
        PcmReader("float32").push(np.array([0.0, np.nan], dtype="<f4").tobytes())
    with pytest.raises(AudioError, match="reach 20000"):
        PcmReader("float32").push(np.array([0.0, 20000.0], dtype="<f4").tobytes())
    with pytest.raises(AudioError, match="'speex' is not supported"):
        PcmReader("speex")
    with pytest.raises(AudioError, match="channels"):
        PcmReader("linear16", 0)
    with pytest.raises(AudioError, match="sample_rate"):
        check_rate(1)
