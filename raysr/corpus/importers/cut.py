"""Cutting the segments of a recording out of it while it is decoded, once."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np

from raysr.corpus.importers.source import Segment

SAMPLE_RATE = 16000


class Span(NamedTuple):
    """A segment in samples at 16 kHz, ``last`` not included."""

    first: int
    last: int

    @classmethod
    def of(cls, segment: Segment, max_seconds: float) -> Self:
        """Return the span of a segment; one without end, or too long, goes a sample beyond ``max_seconds``."""
        first = round(segment.start * SAMPLE_RATE)
        most = round(max_seconds * SAMPLE_RATE) + 1
        if segment.duration is None:
            return cls(first, first + most)
        return cls(first, first + min(most, max(1, round(segment.duration * SAMPLE_RATE))))


def cut(
    blocks: Iterable[np.ndarray], spans: Sequence[Span]
) -> Iterator[tuple[int, np.ndarray, float | None]]:
    """Yield ``(place in spans, samples (N,), end)`` for each span, as soon as its last sample is there.

    Args:
        blocks: a recording from the first sample of the first span on; not read further than is needed.
        spans: in any order; they may overlap.

    ``end`` is where the recording ended, in seconds, for spans that it was too short for, else None. Memory
    holds the spans that are under way and one block.
    """
    waiting = deque(sorted(range(len(spans)), key=lambda index: spans[index].first))
    under_way: dict[int, list[np.ndarray]] = {}
    position = spans[waiting[0]].first
    for block in blocks:
        end = position + len(block)
        while waiting and spans[waiting[0]].first < end:
            under_way[waiting.popleft()] = []
        for index in list(under_way):
            first, last = spans[index]
            under_way[index].append(block[max(0, first - position) : last - position])
            if last <= end:
                yield index, np.concatenate(under_way.pop(index)), None
        position = end
        if not waiting and not under_way:
            return
    for index, parts in under_way.items():
        yield index, np.concatenate(parts), position / SAMPLE_RATE
    for index in waiting:
        yield index, np.zeros(0, np.float32), position / SAMPLE_RATE
