"""The largest budget of a batch under a limit of memory, from measuring few batches that are expected to fit."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from raysr.train.memory.growth import Growth
from raysr.train.memory.shapes import Shape, WorstShapes

TRIES = 8
CLOSE = 0.02  # a budget that is larger by less is no other

Measure = Callable[[Sequence[Shape]], list[int | None]]
"""Returns the bytes that each shape takes, the smallest first, or None for more than there are."""
Points = list[tuple[Shape, int]]


@dataclass(frozen=True)
class Found:
    """A budget under which no batch takes more memory than it may.

    Attributes:
        batch_frames: of a global batch, as a sampler takes it.
        worst: of its batches the one that takes the most, as one rank gets it.
        peak: bytes that this one was measured to take.
        predicted: bytes that it was expected to take before.
        limit: bytes that it may take.
    """

    batch_frames: int
    worst: Shape
    peak: int
    predicted: int
    limit: int

    def seconds(self, frame_shift_ms: float) -> float:
        """Return the budget as the ``batch_seconds`` of a training."""
        return self.batch_frames * frame_shift_ms / 1000


class NoRoom(Exception):
    """One utterance alone takes too much.

    Attributes:
        frames: of it.
        needed: bytes that a step takes, or more.
    """

    def __init__(self, frames: int, needed: int) -> None:
        super().__init__(frames, needed)
        self.frames, self.needed = frames, needed


def search(measure: Measure, shapes: WorstShapes, limit: int) -> Found:
    """Return the largest budget whose worst batches were measured to take no more than ``limit`` bytes.

    Raises:
        NoRoom: there is none.
    """
    points = _measured(measure, _small(shapes))
    points += _measured(measure, _of_the_corpus(shapes, _growth(points, shapes, limit), limit))
    found: Found | None = None
    failed: int | None = None
    for _ in range(TRIES):
        growth = _growth(points, shapes, limit)
        budget = _largest(growth, shapes, limit, _ceiling(shapes.total, found, failed))
        if found is not None and budget <= found.batch_frames * (1 + CLOSE):
            break
        tried = _worst(growth, shapes, budget)
        measured = _measured(measure, tried)
        points += measured
        worst, peak = max(measured, key=lambda point: point[1], default=(tried[0], limit))
        if len(measured) == len(tried) and peak <= limit:
            found = Found(budget, worst, peak, round(float(growth.peak(*worst))), limit)
        else:
            failed = budget
    if found is None:
        raise NoRoom(int(shapes.frames[-1]), limit)
    return found


def _ceiling(total: int, found: Found | None, failed: int | None) -> int:
    """Return the largest budget worth trying, after one that fits and one that does not."""
    if failed is None:
        return total
    return failed * 9 // 10 if found is None else (found.batch_frames + failed) // 2


def _measured(measure: Measure, shapes: Sequence[Shape]) -> Points:
    """Return what those shapes take that fit."""
    peaks = measure(shapes) if shapes else []
    return [(shape, peak) for shape, peak in zip(shapes, peaks, strict=True) if peak is not None]


def _growth(points: Points, shapes: WorstShapes, limit: int) -> Growth:
    """Return what the points tell; raise NoRoom where it is that an utterance alone takes too much."""
    if not points:
        raise NoRoom(int(shapes.frames[-1]), limit)
    growth = Growth(points)
    alone = growth.peak(1, shapes.stretched, shapes.tokens)
    if alone.max() > limit:
        raise NoRoom(int(shapes.frames[alone.argmax()]), round(float(alone.max())))
    return growth


def _small(shapes: WorstShapes) -> list[Shape]:
    """Return shapes that take no more than the longest utterance does."""
    _, frames, tokens = shapes.shape(-1, 1)
    half, quarter = (max(1, frames // 2), tokens // 2), (max(1, frames // 4), tokens // 4)
    return [Shape(1, *quarter), Shape(2, *quarter), Shape(1, *half), Shape(4, *quarter)]


def _of_the_corpus(shapes: WorstShapes, growth: Growth, limit: int) -> list[Shape]:
    """Return batches of the corpus's extremes, with the frames of its longest utterance and with four times as many."""
    longest = int(shapes.frames[-1])
    batches = [
        shapes.shape(length, max(1, total // int(shapes.frames[length])))
        for total in (longest, 4 * longest)
        for length in _extremes(shapes)
    ]
    return _ascending(growth, (batch for batch in batches if growth.peak(*batch) <= limit))


def _worst(growth: Growth, shapes: WorstShapes, budget: int) -> list[Shape]:
    """Return the batch that takes the most under a budget, and those of the corpus's extremes."""
    utterances = shapes.utterances(budget)
    most = int(growth.peak(utterances, shapes.stretched, shapes.tokens).argmax())
    lengths = (most, *_extremes(shapes))
    return _ascending(growth, (shapes.shape(length, int(utterances[length])) for length in lengths))


def _extremes(shapes: WorstShapes) -> list[int]:
    """Return the shortest length, that with the most tokens a frame, and the longest."""
    return [0, int((shapes.tokens / shapes.frames).argmax()), len(shapes.frames) - 1]


def _ascending(growth: Growth, batches: Iterable[Shape]) -> list[Shape]:
    return sorted(set(batches), key=lambda batch: float(growth.peak(*batch)))


def _largest(growth: Growth, shapes: WorstShapes, limit: int, ceiling: int) -> int:
    """Return the largest budget up to the ceiling under which all batches are expected to fit."""
    low, high = 1, max(1, ceiling)
    while low < high:
        middle = (low + high + 1) // 2
        fits = growth.peak(shapes.utterances(middle), shapes.stretched, shapes.tokens).max() <= limit
        low, high = (middle, high) if fits else (low, middle - 1)
    return low
