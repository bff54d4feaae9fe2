"""Sounds in every container that users bring."""

import io

import av
import numpy as np
import pytest

from raysr.audio.encode import wav_bytes
from raysr.audio.resample import resample

# extension → (muxer, encoder, rate, channels)
FORMS = {
    "wav": ("wav", "pcm_s16le", 16000, 1),
    "u8.wav": ("wav", "pcm_u8", 8000, 1),
    "s24.wav": ("wav", "pcm_s24le", 48000, 2),
    "f32.wav": ("wav", "pcm_f32le", 16000, 1),
    "f64.wav": ("wav", "pcm_f64le", 22050, 2),
    "aiff": ("aiff", "pcm_s16be", 44100, 1),
    "flac": ("flac", "flac", 44100, 1),
    "mp3": ("mp3", "libmp3lame", 44100, 2),
    "opus": ("ogg", "libopus", 48000, 1),
    "webm": ("webm", "libopus", 48000, 2),
    "m4a": ("ipod", "aac", 44100, 1),
    "aac": ("adts", "aac", 48000, 1),
    "g722": ("g722", "g722", 16000, 1),
    "ulaw": ("mulaw", "pcm_mulaw", 8000, 1),
    "alaw": ("alaw", "pcm_alaw", 8000, 1),
    "sln": ("s16le", "pcm_s16le", 8000, 1),
    "sln16": ("s16le", "pcm_s16le", 16000, 1),
}


def encode(samples: np.ndarray, form: str) -> bytes:
    """Return 16 kHz mono samples in one of the ``FORMS``; all channels are equal."""
    muxer, codec, rate, channels = FORMS[form]
    output = io.BytesIO()
    with av.open(output, "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, av.AudioStream)
        layout = "mono" if channels == 1 else "stereo"
        stream.layout = layout
        stream.codec_context.open()
        context = stream.codec_context
        to_codec = av.AudioResampler(context.format.name, layout, rate, context.frame_size or None)
        pcm = np.tile(resample(samples, 16000, rate).astype(np.float32), (channels, 1))
        frame = av.AudioFrame.from_ndarray(pcm, format="fltp", layout=layout)
        frame.rate = rate
        for piece in [*to_codec.resample(frame), *to_codec.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return output.getvalue()


@pytest.fixture(scope="session")
def speechlike() -> np.ndarray:
    """Return two seconds of a gliding tone with pauses, within the band of a telephone."""
    time = np.arange(32000) / 16000
    tone = np.sin(2 * np.pi * (500 * time + 300 * time**2))
    return (0.4 * tone * np.sin(2 * np.pi * 1.5 * time) ** 2).astype(np.float32)


@pytest.fixture(scope="session")
def encoded(speechlike: np.ndarray) -> dict[str, bytes]:
    """Return the tone in every form."""
    return {form: encode(speechlike, form) for form in FORMS}


@pytest.fixture(scope="session")
def long_encoded(speechlike: np.ndarray) -> dict[str, bytes]:
    """Return ten seconds of it in every form."""
    return {form: encode(np.tile(speechlike, 5), form) for form in FORMS}


@pytest.fixture(scope="session")
def wav(speechlike: np.ndarray) -> bytes:
    return wav_bytes(speechlike)
