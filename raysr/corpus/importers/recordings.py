"""Reading recordings for an import: are they sound, and in which form do shards keep their segments."""

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np

from raysr.audio.container import HEADERLESS
from raysr.audio.encode import flac_below
from raysr.audio.files import AudioInfo, decode_blocks, probe
from raysr.corpus import places
from raysr.corpus.importers.cut import Span, cut
from raysr.corpus.importers.report import Problem
from raysr.corpus.importers.source import Recording, Segment
from raysr.errors import AudioError, CorpusError

SAMPLE_RATE = 16000
MIN_SECONDS = 0.1
# What Kaldi's extract-segments forgives (--max-overshoot): transcribers round, recorders drop the last frames.
MAX_OVERSHOOT_S = 0.5
# Manifests round durations: what reaches so near to a recording's end means all of it.
_ROUNDING_S = 0.01


@dataclass(frozen=True)
class Clip:
    """The sound audio of one utterance as a shard will hold it.

    Attributes:
        audio: encoded; :func:`raysr.audio.files.decode` reads it. Empty where only a reference is wanted.
        seconds: of the utterance.
        sample_rate: of ``audio``, or of the recording referred to, in Hz.
        origin: what it was, for ``custom``.
    """

    audio: bytes
    seconds: float
    sample_rate: int
    origin: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadTask:
    """One recording to read, once, for all its segments.

    Attributes:
        recording: where it is.
        segments: what is wanted of it, by start.
        max_seconds: the longest utterance to take.
        encode: False checks the audio only, for utterances that refer to it.
        data: the bytes of a recording that lies in a table.
        unreadable: why they could not be had.
    """

    recording: Recording
    segments: list[Segment]
    max_seconds: float
    encode: bool = True
    data: bytes | None = None
    unreadable: str | None = None


class _Unusable(Exception):
    """A recording, or one of its segments, that cannot be used: kind of problem, and reason."""


def read_clips(task: ReadTask) -> Iterator[tuple[int, Clip | Problem]]:
    """Yield ``(place in task.segments, clip or what is wrong)``, one of each, as the recording goes by.

    A recording that is one utterance keeps its bytes as they came unless 16 kHz mono FLAC is smaller (PCM,
    video, stereo music): nothing that raysr hears is lost either way, and compact speech codecs stay exactly
    what they were. Headerless streams (G.722, …) always become FLAC, since their bytes alone could not be
    decoded, and so do segments, which are cut out in one pass through the recording.
    """
    left = dict(enumerate(task.segments))
    try:
        for index, outcome in _read(task):
            where = left.pop(index).where
            if isinstance(outcome, _Unusable):
                kind, reason = outcome.args
                yield index, Problem(kind, where, _named(reason, where, task.recording.name))
            else:
                yield index, outcome
    except (_Unusable, AudioError, CorpusError, OSError, ValueError, MemoryError) as error:
        for index, segment in left.items():
            named = segment.where != task.recording.name
            kind = "missing file" if named and isinstance(error, FileNotFoundError) else "unreadable audio"
            reason = _words(error)
            if isinstance(error, _Unusable):
                kind, reason = error.args
            yield index, Problem(kind, segment.where, _named(reason, segment.where, task.recording.name))


def _read(task: ReadTask) -> Iterator[tuple[int, Clip | _Unusable]]:
    recording, segments = task.recording, task.segments
    source, size = _open(task)
    info = probe(source, name=recording.name)
    channel = _check(recording, info)
    if not task.encode:
        _check_reference(task, info, channel)
    whole = len(segments) == 1 and _is_whole(segments[0], info.duration) and channel is None
    if whole and info.duration and info.duration > task.max_seconds:
        raise _too_long(info.duration, task.max_seconds)
    spans = [Span.of(segment, task.max_seconds) for segment in segments]
    if whole:
        spans = [Span(0, round(task.max_seconds * SAMPLE_RATE) + 1)]
    begin = min(span.first for span in spans) / SAMPLE_RATE
    if info.duration and begin >= info.duration + MAX_OVERSHOOT_S:
        raise _beyond(info.duration)
    blocks = decode_blocks(source, start=begin, name=recording.name, channel=channel)
    for index, samples, end in cut(blocks, spans):
        try:
            piece = _piece(task, segments[index], samples, end)
            as_it_came = (source, size) if whole and len(piece) == len(samples) else None
            yield index, _clip(task, info, segments[index], piece, as_it_came)
        except _Unusable as error:
            yield index, error


def _open(task: ReadTask) -> tuple[str | bytes, int]:
    """Return what to decode and its size in bytes; nothing but regular files is opened."""
    audio = task.recording.audio
    if task.unreadable:
        raise _Unusable("unreadable audio", task.unreadable)
    if task.data is None and isinstance(audio, str) and not places.is_uri(audio):
        status = os.stat(audio)
        if not stat.S_ISREG(status.st_mode):
            raise _Unusable("unreadable audio", "is no regular file: give an audio file")
        source: str | bytes = audio
        size = status.st_size
    else:
        source = task.data if task.data is not None else _bytes(str(audio))
        size = len(source)
    if size == 0:
        raise _Unusable("no audio", "is empty (0 bytes): record it again, or remove it")
    return source, size


def _bytes(place: str) -> bytes:
    with places.open_binary(place) as file:
        return file.read()


def _check(recording: Recording, info: AudioInfo) -> int | None:
    """Return the channel to take of a file of several; raise when the file is not what the corpus says."""
    # Opus always decodes at 48 kHz, whatever was recorded: manifests may name either rate.
    if recording.sample_rate not in (None, info.sample_rate) and info.codec != "opus":
        reason = (
            f"is said to have {recording.sample_rate} Hz and has {info.sample_rate}: is it the right file?"
        )
        raise _Unusable("wrong rate", reason)
    if recording.channel is not None and recording.channel >= info.channels:
        counted = "1 channel" if info.channels == 1 else f"{info.channels} channels"
        raise _Unusable("no such channel", f"has {counted}, none of number {recording.channel}, from 0")
    return recording.channel if info.channels > 1 else None


def _check_reference(task: ReadTask, info: AudioInfo, channel: int | None) -> None:
    """Raise when an utterance cannot refer to what was asked for: it names a file, and hears all its channels."""
    if task.data is not None:
        raise _Unusable("audio in a table", "lies inside a table: import without --reference")
    if channel is not None:
        reason = (
            f"has {info.channels} channels, and number {channel} alone is wanted: import without --reference"
        )
        raise _Unusable("one of several channels", reason)


def _is_whole(segment: Segment, seconds: float | None) -> bool:
    if segment.start:
        return False
    return segment.duration is None or not seconds or segment.duration >= seconds - _ROUNDING_S


def _piece(task: ReadTask, segment: Segment, samples: np.ndarray, end: float | None) -> np.ndarray:
    """Return the samples of a segment, no more than it asks for; raise when they are too few or too many."""
    if segment.duration is not None and len(samples) > (segment.duration + _ROUNDING_S) * SAMPLE_RATE:
        samples = samples[: round(segment.duration * SAMPLE_RATE)]
    seconds = len(samples) / SAMPLE_RATE
    if seconds > task.max_seconds:
        raise _too_long(seconds, task.max_seconds)
    declared = segment.duration if segment.duration is not None else task.recording.duration
    if end is not None and declared is not None and seconds < declared - MAX_OVERSHOOT_S:
        raise _beyond(end)
    if seconds < MIN_SECONDS:
        if end is not None and end <= segment.start:
            raise _beyond(end)
        least = f"at least {MIN_SECONDS * 1000:.0f} ms are needed"
        raise _Unusable("too short", f"lasts {seconds * 1000:.2g} ms: {least}")
    return samples


def _clip(
    task: ReadTask,
    info: AudioInfo,
    segment: Segment,
    samples: np.ndarray,
    as_it_came: tuple[str | bytes, int] | None,
) -> Clip:
    seconds = len(samples) / SAMPLE_RATE
    origin: dict[str, Any] = {
        "file": task.recording.name,
        "codec": info.codec,
        "sample_rate": info.sample_rate,
    }
    if segment.start:
        origin["start"] = segment.start
    if not task.encode:
        return Clip(b"", seconds, info.sample_rate, origin)
    peak = float(max(samples.max(), -samples.min()))
    source, size = as_it_came if as_it_came and not _is_headerless(task.recording.name) else (b"", math.inf)
    flac = flac_below(samples if peak <= 1.0 else samples / peak, size)
    if flac is None:
        data = source if isinstance(source, bytes) else _bytes(source)
        return Clip(data, seconds, info.sample_rate, origin)
    if peak > 1.0:
        origin["gain"] = 1 / peak
    return Clip(flac, seconds, SAMPLE_RATE, origin)


def _is_headerless(name: str) -> bool:
    return PurePath(name).suffix.lower() in HEADERLESS


def _beyond(seconds: float) -> _Unusable:
    reason = f"holds {seconds:.2f} s, and the segment reaches beyond: is it the right file, and whole?"
    return _Unusable("beyond the end", reason)


def _too_long(seconds: float, limit: float) -> _Unusable:
    reason = (
        f"lasts {_clock(seconds)}, more than {_clock(limit)}: cut it into utterances, "
        f"or raise --max-duration above {seconds:.0f}"
    )
    return _Unusable("too long", reason)


def _clock(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.0f} s"


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return str(error) or type(error).__name__


def _named(reason: str, where: str, name: str) -> str:
    """Return a reason that names the recording, unless it stands beside it."""
    for prefix in (f"{name}: ", f"{name} "):
        reason = reason.removeprefix(prefix)
    return reason if where == name else f"{name}: {reason}"
