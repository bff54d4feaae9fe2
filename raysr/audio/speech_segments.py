"""From probabilities of speech to segments: cut at pauses, none too long, short ones joined."""

import itertools
from typing import NamedTuple

import numpy as np
from pydantic import Field, model_validator

from raysr.audio.vad import FRAME
from raysr.config import Config

SAMPLE_RATE = 16000
FRAME_S = FRAME / SAMPLE_RATE


class SegmentConfig(Config):
    """How long recordings are cut.

    Attributes:
        longer_than: seconds; shorter utterances are left whole. None leaves all whole.
        longest: seconds that a segment may have. Speech without a pause is cut where it sounds least like speech.
        shortest: seconds; a shorter segment takes in its neighbour, over a pause of up to four times ``pause``.
        pause: seconds; speech on both sides of a shorter one stays together, as long as ``longest`` allows.
        pad: seconds of what surrounds it that a segment keeps, at most half of the pause.
        threshold: probability from which a frame is speech; speech ends 0.15 below it.
    """

    longer_than: float | None = Field(default=30.0, gt=0)
    longest: float = Field(default=20.0, ge=1.0)
    shortest: float = Field(default=2.0, ge=0)
    pause: float = Field(default=0.5, gt=0)
    pad: float = Field(default=0.2, ge=0)
    threshold: float = Field(default=0.5, gt=0.15, lt=1)

    @model_validator(mode="after")
    def _possible(self) -> "SegmentConfig":
        if self.longest < max(2 * self.shortest, 4 * self.pad):
            raise ValueError("longest should be at least twice shortest and four times pad")
        return self


class Segment(NamedTuple):
    """A piece of a recording, in seconds from its beginning."""

    start: float
    end: float


def speech_frames(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Return which frames are speech, (T,) bool: from ``threshold`` on, until 0.15 below it."""
    above, below = probabilities >= threshold, probabilities < threshold - 0.15
    if not len(probabilities):
        return above
    last = np.maximum.accumulate(np.where(above | below, np.arange(len(above)), -1))  # who decided, (T,)
    return (last >= 0) & above[np.maximum(last, 0)]


def segments(probabilities: np.ndarray, duration: float, config: SegmentConfig) -> list[Segment]:
    """Return segments that hold all speech: in order, without overlap, within the recording's ``duration``.

    Args:
        probabilities: of speech, one for each frame of 32 ms, (T,).
        duration: of the recording in seconds.
        config: the lengths.
    """
    pad = int(config.pad / FRAME_S)
    most = int(config.longest / FRAME_S) - 2 * pad
    pieces = [
        piece
        for span in _spans(speech_frames(probabilities, config.threshold))
        for piece in _cut(span, probabilities, most)
    ]
    joined = _joined(pieces, most, config)
    middles = [(end + start) // 2 for (_, end), (start, _) in itertools.pairwise(joined)]
    return [
        Segment(FRAME_S * max(start - pad, low), min(duration, FRAME_S * min(end + pad, high)))
        for (start, end), low, high in zip(
            joined, [0, *middles], [*middles, len(probabilities)], strict=bool(joined)
        )
    ]


def _spans(speech: np.ndarray) -> list[tuple[int, int]]:
    """Return the (first, one past the last) frame of every run of speech."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], speech.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _cut(span: tuple[int, int], probabilities: np.ndarray, most: int) -> list[tuple[int, int]]:
    """Cut a span that is too long, in the second half of what fits, where speech is least likely."""
    start, end = span
    pieces = []
    while end - start > most:
        low = start + max(1, most // 2)
        place = low + int(np.argmin(probabilities[low : start + most + 1]))
        pieces.append((start, place))
        start = place
    return [*pieces, (start, end)]


def _joined(pieces: list[tuple[int, int]], most: int, config: SegmentConfig) -> list[tuple[int, int]]:
    """Join pieces over short pauses, and short pieces over longer ones, as far as a segment may reach."""
    pause, shortest = config.pause / FRAME_S, config.shortest / FRAME_S
    joined: list[tuple[int, int]] = []
    for start, end in pieces:
        if joined:
            first, last = joined[-1]
            is_short = min(last - first, end - start) < shortest
            if end - first <= most and start - last <= (4 * pause if is_short else pause):
                joined[-1] = (first, end)
                continue
        joined.append((start, end))
    return joined
