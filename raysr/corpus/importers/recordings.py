"""Reading one audio file for an import: is it sound, and in which form do shards keep it."""

import io
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np

from raysr.audio.container import HEADERLESS
from raysr.audio.files import decode, probe
from raysr.corpus.importers.report import Problem
from raysr.corpus.importers.scan import Found
from raysr.errors import AudioError

SAMPLE_RATE = 16000
MIN_SECONDS = 0.1


@dataclass(frozen=True)
class Recording:
    """A sound audio file as a shard will hold it.

    Attributes:
        audio: encoded; :func:`raysr.audio.files.decode` reads it.
        seconds, sample_rate: of ``audio``.
        origin: what the file was, for ``custom``.
    """

    audio: bytes
    seconds: float
    sample_rate: int
    origin: dict[str, Any] = field(default_factory=dict)


def read_recording(found: Found, max_seconds: float) -> Recording | Problem:
    """Decode a file whole and return it in the form that shards keep, or what is wrong with it.

    The bytes are kept as they came unless 16 kHz mono FLAC is smaller (PCM, video, stereo music): nothing
    that raysr hears is lost either way, and compact speech codecs stay exactly what they were. Headerless
    streams (G.722, …) always become FLAC, since their bytes alone could not be decoded.
    """
    try:
        size = found.path.stat().st_size
        if size == 0:
            return Problem("no audio", found.name, "is empty (0 bytes): record it again, or remove it")
        info = probe(found.path)
        if info.duration and info.duration > max_seconds:
            return _too_long(found, info.duration, max_seconds)
        data = found.path.read_bytes()
        alone = found.path.suffix.lower() not in HEADERLESS
        samples = decode(data if alone else found.path, max_seconds=max_seconds, name=found.name)
    except AudioError as error:
        return Problem("unreadable audio", found.name, _without(str(error), found.name))
    except OSError as error:
        return Problem("unreadable audio", found.name, (error.strerror or str(error)).lower())
    seconds = len(samples) / SAMPLE_RATE
    if seconds < MIN_SECONDS:
        reason = f"lasts {seconds * 1000:.2g} ms: at least {MIN_SECONDS * 1000:.0f} ms are needed"
        return Problem("too short", found.name, reason)
    origin = {"file": found.name, "codec": info.codec, "sample_rate": info.sample_rate}
    peak = float(np.abs(samples).max())
    flac = flac_bytes(samples / max(1.0, peak))
    if alone and size <= len(flac):
        return Recording(data, seconds, info.sample_rate, origin)
    if peak > 1.0:
        origin["gain"] = 1 / peak
    return Recording(flac, seconds, SAMPLE_RATE, origin)


def flac_bytes(samples: np.ndarray) -> bytes:
    """Encode float samples (N,) in [-1, 1] at 16 kHz as 16-bit FLAC."""
    pcm = np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)
    target = io.BytesIO()
    # Without the 8 kB that FFmpeg leaves for tags: as much as half a second of speech.
    with av.open(target, "w", format="flac", options={"metadata_header_padding": "0"}) as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format="s16")
        for start in range(0, len(pcm), SAMPLE_RATE):
            frame = av.AudioFrame.from_ndarray(pcm[None, start : start + SAMPLE_RATE], "s16", "mono")
            frame.sample_rate = SAMPLE_RATE
            frame.pts = start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def _too_long(found: Found, seconds: float, limit: float) -> Problem:
    reason = (
        f"lasts {_clock(seconds)}, more than {_clock(limit)}: cut it into utterances, "
        f"or raise --max-duration above {seconds:.0f}"
    )
    return Problem("too long", found.name, reason)


def _clock(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.0f} s"


def _without(message: str, name: str) -> str:
    """Return the message without the file's name, which stands beside it."""
    for prefix in (f"{name}: ", f"{name} "):
        message = message.removeprefix(prefix)
    return message
