"""Endpointing: where a segment ends, told from the CTC blank alone, one frame after the other."""

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from raysr.config import Config

Cause = Literal["pause", "length", "silence"]


class EndpointConfig(Config):
    """When a segment ends; times in seconds.

    Attributes:
        blank_threshold: a frame whose blank is less probable than this is speech.
        pause: a segment with speech ends after this long without.
        long_segment: from this length on ``short_pause`` is enough.
        short_pause: see ``long_segment``.
        max_segment: a segment of this length ends, even within a word.
        max_silence: a segment without any speech is dropped after this long, so that memory stays bounded.
    """

    blank_threshold: float = Field(default=0.8, gt=0, lt=1)
    pause: float = Field(default=0.8, gt=0)
    long_segment: float = Field(default=12.0, gt=0)
    short_pause: float = Field(default=0.3, gt=0)
    max_segment: float = Field(default=20.0, gt=0)
    max_silence: float = Field(default=5.0, gt=0)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The end of a segment: its first frame that is no longer in it, counted from 0, and why."""

    frame: int
    cause: Cause


class Endpointer:
    """Counts frames; since it sees them one by one, its answers do not depend on how they are handed over."""

    def __init__(self, config: EndpointConfig, frame_seconds: float) -> None:
        self.config = config
        self._speech_below = math.log(config.blank_threshold)
        times = (
            config.pause,
            config.long_segment,
            config.short_pause,
            config.max_segment,
            config.max_silence,
        )
        counts = [max(1, round(seconds / frame_seconds)) for seconds in times]
        self._pause, self._long, self._short_pause, self._longest, self._max_silence = counts
        self._frame = 0
        self.restart()

    def restart(self) -> None:
        """Begin a new segment at the next frame."""
        self._begin = self._frame
        self._speech_end: int | None = None

    def push(self, blank_log_probs: list[float]) -> list[Endpoint]:
        """Read natural-log blank posteriors, one a frame; return the segments that end among them."""
        return [end for value in blank_log_probs if (end := self._read(value))]

    def _read(self, blank: float) -> Endpoint | None:
        self._frame += 1
        if blank < self._speech_below:
            self._speech_end = self._frame
        cause = self._cause()
        if cause is None:
            return None
        self.restart()
        return Endpoint(self._frame, cause)

    def _cause(self) -> Cause | None:
        length = self._frame - self._begin
        if self._speech_end is None:
            return "silence" if length >= self._max_silence else None
        pause = self._frame - self._speech_end
        if pause >= (self._short_pause if length >= self._long else self._pause):
            return "pause"
        return "length" if length >= self._longest else None
