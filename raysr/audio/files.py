"""Audio files in, as 16 kHz mono and in bounded memory; the way out is ``raysr.audio.encode``."""

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np

from raysr.audio.completeness import check_complete
from raysr.audio.container import Audio, Source, ffmpeg_errors, open_audio
from raysr.audio.encode import encode_opus, wav_bytes, write_wav
from raysr.audio.pcm import mono
from raysr.audio.resample import Resampler
from raysr.errors import AudioError

__all__ = [
    "SAMPLE_RATE",
    "AudioInfo",
    "decode",
    "decode_blocks",
    "encode_opus",
    "probe",
    "wav_bytes",
    "write_wav",
]

SAMPLE_RATE = 16000
BLOCK_SECONDS = 0.5
MOST_SKIPPED = 0.1
DAMAGED = "damaged: it cannot be decoded to its end; copy or export it again"


class AudioInfo(NamedTuple):
    """What a file says of itself; ``duration`` (s) is None where it does not say, and for MP3 an estimate."""

    duration: float | None
    sample_rate: int
    channels: int
    codec: str


def probe(source: Source, *, name: str | None = None) -> AudioInfo:
    """Read the header of an audio file; raise :class:`AudioError` when it has none."""
    with open_audio(source, name) as audio:
        stream = audio.stream
        duration = audio.container.duration / 1e6 if audio.container.duration else None
        if stream.duration and stream.time_base:
            duration = float(stream.duration * stream.time_base)
        return AudioInfo(duration, stream.rate, stream.channels, stream.codec_context.name)


def decode(
    source: Source,
    *,
    start: float = 0.0,
    duration: float | None = None,
    max_seconds: float | None = None,
    name: str | None = None,
) -> np.ndarray:
    """Return 16 kHz mono samples (N,) float32 of a file, of bytes or of a binary file object.

    Full scale is [-1, 1]; what codecs and resampling overshoot is kept, so that streams and files agree.

    Args:
        source: local path, encoded bytes, or a binary file object, seekable or not.
        start, duration: the segment wanted, in seconds: bit for bit a slice of the whole, up to its end. PCM
            and FLAC are sought, all else is decoded from its beginning.
        max_seconds: the longest result to accept, checked while decoding.
        name: what to call the source in errors; its extension tells headerless formats.

    Raises:
        AudioError: one line that names the source: missing, empty, not audio, damaged, truncated, too long,
            without samples, or with samples that are not numbers.
    """
    blocks = decode_blocks(source, start=start, duration=duration, max_seconds=max_seconds, name=name)
    return np.concatenate(list(blocks))


def decode_blocks(
    source: Source,
    *,
    start: float = 0.0,
    duration: float | None = None,
    max_seconds: float | None = None,
    name: str | None = None,
    channel: int | None = None,
) -> Iterator[np.ndarray]:
    """Yield what :func:`decode` returns in blocks of about half a second, in memory that does not grow.

    ``channel`` takes one channel of the file, counted from 0, in place of the mean of all.
    """
    with open_audio(source, name) as audio:
        first, wanted = _span(start, duration, audio.name)
        resampler = Resampler(audio.stream.rate, SAMPLE_RATE)
        begin, skip = resampler.before(first)
        total = 0
        for block in _resampled(_pieces(audio, begin, channel), resampler, audio.stream.rate):
            block, skip = block[skip:], max(0, skip - len(block))
            block = block if wanted is None else block[: wanted - total]
            total += len(block)
            if max_seconds is not None and total > round(max_seconds * SAMPLE_RATE):
                raise AudioError(
                    f"{audio.name}: longer than the limit of {max_seconds:g} s; split it into segments"
                )
            if len(block):
                yield block
            if total == wanted:
                return
        if not total:
            where = f"no audio at {start:g} s" if first else "no samples"
            raise AudioError(f"{audio.name}: the file holds {where}; check the segment, or export it again")


def _span(start: float, duration: float | None, name: str) -> tuple[int, int | None]:
    """Return the first output sample of a segment and how many there should be (None: to the end)."""
    if not 0 <= start < 1e9 or (duration is not None and not 0 < duration < 1e9):
        raise AudioError(
            f"{name}: start {start} s, duration {duration} s: start should be ≥ 0 and duration > 0"
        )
    return round(start * SAMPLE_RATE), None if duration is None else max(1, round(duration * SAMPLE_RATE))


def _resampled(pieces: Iterator[np.ndarray], resampler: Resampler, rate: int) -> Iterator[np.ndarray]:
    """Resample in blocks: codecs hand over frames too short to be worth a call each."""
    waiting: list[np.ndarray] = []
    for piece in pieces:
        waiting.append(piece)
        if sum(map(len, waiting)) >= BLOCK_SECONDS * rate:
            yield resampler.push(np.concatenate(waiting))
            waiting = []
    if waiting:
        yield resampler.push(np.concatenate(waiting))
    yield resampler.flush()


def _pieces(audio: Audio, begin: int, channel: int | None) -> Iterator[np.ndarray]:
    """Yield mono samples at the file's own rate from sample ``begin`` on; check that the end is not a cut."""
    position = None if _seek(audio, begin) else 0
    for frame in _frames(audio):
        if position is None:
            position = _position(frame, audio, begin)
        if channel is not None and channel >= frame.layout.nb_channels:
            raise AudioError(
                f"{audio.name}: has {frame.layout.nb_channels} channels, none of number {channel + 1}"
            )
        if frame.sample_rate != audio.stream.rate:
            change = (
                f"from {audio.stream.rate} to {frame.sample_rate} Hz at {position / audio.stream.rate:.1f} s"
            )
            raise AudioError(f"{audio.name}: changes its sample rate {change}; split it there")
        end = position + frame.samples
        if end > begin:
            yield mono(frame, audio.name, channel)[max(0, begin - position) :]
        position = end
    if position is not None:
        check_complete(audio, position / audio.stream.rate)


def _seek(audio: Audio, begin: int) -> bool:
    """Seek to at most sample ``begin`` where that is exact: in PCM and FLAC whose clock counts samples."""
    codec, unit = audio.stream.codec_context.name, audio.stream.time_base
    if (
        not begin
        or unit != Fraction(1, audio.stream.rate)
        or not (codec == "flac" or codec.startswith("pcm_"))
    ):
        return False
    with ffmpeg_errors(audio.name, "damaged: its segments cannot be found; copy or export it again"):
        audio.container.seek(begin, stream=audio.stream)
    return True


def _position(frame: av.AudioFrame, audio: Audio, begin: int) -> int:
    if frame.pts is None or frame.pts > begin:
        raise AudioError(f"{audio.name}: its segments cannot be found; export it again as wav or flac")
    return frame.pts


def _frames(audio: Audio) -> Iterator[av.AudioFrame]:
    """Yield every decoded frame; of MP3 and AAC streams a little rubbish is skipped, as every player does."""
    packets = skipped = 0
    with ffmpeg_errors(audio.name, DAMAGED):
        for packet in audio.container.demux(audio.stream):
            packets += 1
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                if audio.container.format.name not in ("mp3", "aac"):
                    raise
                skipped += 1
                continue
            yield from frames
    if skipped > MOST_SKIPPED * packets:
        raise AudioError(f"{audio.name}: {DAMAGED}")
