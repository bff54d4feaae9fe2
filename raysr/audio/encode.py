"""Samples out: FLAC and Ogg/Opus for corpora, FLAC and WAV for everything that reads them."""

import io
import math
import wave
from pathlib import Path

import av
import numpy as np

from raysr.errors import AudioError

SAMPLE_RATE = 16000


def encode_opus(samples: np.ndarray, bitrate: int = 16000) -> bytes:
    """Return 16 kHz mono samples (N,) in [-1, 1] as Ogg/Opus (RFC 6716, RFC 7845) at ``bitrate`` bit/s.

    Decoding gives N samples again (a few more when N is below one frame of 20 ms). The bytes depend on
    nothing but the samples, the bitrate and the encoder's version.
    """
    if len(samples) == 0:
        raise AudioError("cannot encode audio without samples")
    output = io.BytesIO()
    # FFmpeg trims the padding of the last Ogg page only when it is not the first as well
    page_us = min(1_000_000, len(samples) * 1_000_000 // SAMPLE_RATE // 2)
    options = {"page_duration": str(page_us), "serial_offset": "1", "fflags": "+bitexact"}
    with av.open(output, "w", format="ogg", options=options) as container:
        stream = container.add_stream("libopus", rate=SAMPLE_RATE, options={"application": "voip"})
        stream.layout = "mono"
        stream.bit_rate = bitrate
        stream.codec_context.open()
        frame = av.AudioFrame.from_ndarray(_int16(samples)[None], format="s16", layout="mono")
        frame.rate = SAMPLE_RATE
        fifo = av.AudioFifo()
        fifo.write(frame)
        for piece in fifo.read_many(stream.codec_context.frame_size, partial=True):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return output.getvalue()


def flac_bytes(samples: np.ndarray) -> bytes:
    """Return 16 kHz mono samples (N,) in [-1, 1] as a 16-bit FLAC file (RFC 9639): half a WAV file, bit for bit."""
    audio = flac_below(samples, math.inf)
    assert audio is not None
    return audio


def flac_below(samples: np.ndarray, size: float) -> bytes | None:
    """Return what :func:`flac_bytes` does if it has fewer bytes than ``size``; encode no further once it has not."""
    if len(samples) == 0:
        raise AudioError("cannot encode audio without samples")
    target = io.BytesIO()
    # Without the 8 kB that FFmpeg leaves for tags: as much as half a second of speech.
    with av.open(target, "w", format="flac", options={"metadata_header_padding": "0"}) as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format="s16")
        for start in range(0, len(samples), SAMPLE_RATE):
            pcm = _int16(samples[None, start : start + SAMPLE_RATE])
            frame = av.AudioFrame.from_ndarray(pcm, "s16", "mono")
            frame.sample_rate = SAMPLE_RATE
            frame.pts = start
            container.mux(stream.encode(frame))
            if target.getbuffer().nbytes >= size:
                return None
        container.mux(stream.encode(None))
    return target.getvalue() if target.getbuffer().nbytes < size else None


def wav_bytes(samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> bytes:
    """Return mono samples (N,) in [-1, 1] as a 16-bit WAV file."""
    output = io.BytesIO()
    with wave.open(output, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(_int16(samples).tobytes())
    return output.getvalue()


def write_wav(path: str | Path, samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> None:
    """Write mono samples (N,) in [-1, 1] as a 16-bit WAV file."""
    Path(path).write_bytes(wav_bytes(samples, sample_rate))


def _int16(samples: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(np.asarray(samples, np.float64) * 32768), -32768, 32767).astype("<i2")
