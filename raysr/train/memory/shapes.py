"""The largest batches that a sampler can deal to a rank, from the lengths of the utterances alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raysr.train.cutting import Indices
from raysr.train.sampler import FEWEST_BATCHES, MOST_BATCHES


class Shape(NamedTuple):
    """What a padded batch holds: (utterances, frames) of features and (utterances, tokens) of texts."""

    utterances: int
    frames: int
    tokens: int


@dataclass(frozen=True)
class Lengths:
    """What a :class:`raysr.train.sampler.MixedSampler` is made with, and the texts' lengths.

    Attributes:
        frames: of each utterance of each source, before augmentation.
        tokens: of their texts, as ``frames``.
        shares: of the sources.
        max_padding: of a batch, in [0, 1).
        stretch: how many times longer augmentation makes an utterance at most.
        frame_shift_ms: from frame to frame.
    """

    frames: Sequence[Sequence[int]]
    tokens: Sequence[Sequence[int]]
    shares: Sequence[float]
    max_padding: float
    stretch: float = 1.0
    frame_shift_ms: float = 10.0


class WorstShapes:
    """For every length that an utterance has, the largest batch in which it is the longest one.

    No batch that is dealt is larger: of several utterances as long as the longest, or as little shorter as there are
    and ``max_padding`` asks for, the most that the budget allows, each of them as often as a window can hold it; all
    with as many tokens as any utterance that is no longer. Of these batches a rank gets its part, rounded up.

    Args:
        lengths: of the corpus.
        ranks: among which a batch is split.
    """

    def __init__(self, lengths: Lengths, ranks: int) -> None:
        frames = np.concatenate([np.asarray(source, dtype=np.int64) for source in lengths.frames])
        tokens = np.concatenate([np.asarray(source, dtype=np.int64) for source in lengths.tokens])
        order = np.argsort(frames, kind="stable")
        self._sorted = frames[order]
        self._sums = np.concatenate(([0], np.cumsum(self._sorted)))
        self.frames: Indices = np.unique(frames)  # (K,), ascending, of the longest utterance
        self._no_longer = np.searchsorted(self._sorted, self.frames, side="right")
        self.tokens: Indices = np.maximum.accumulate(tokens[order])[self._no_longer - 1]  # (K,)
        self.stretched: Indices = np.ceil(self.frames * lengths.stretch).astype(np.int64)  # (K,)
        whole = sum(lengths.shares)
        self._until_repeated = np.array(
            [
                sum(source) * whole / share
                for source, share in zip(lengths.frames, lengths.shares, strict=True)
            ]
        )
        self._late = self.frames[-1] * whole / np.asarray(lengths.shares)
        self._max_padding, self._ranks = lengths.max_padding, ranks

    @property
    def total(self) -> int:
        """Frames of the corpus: no budget need be larger."""
        return int(self._sums[-1])

    def utterances(self, budget: int) -> Indices:
        """Return, for each length, the utterances of a rank's part of the largest batch of ``budget`` frames, (K,)."""
        copies, most = self._copies(budget), np.maximum(budget // self.frames, 1)
        low, high = np.ones_like(most), np.minimum(most, self._no_longer * copies)
        while (low < high).any():
            middle = (low + high + 1) // 2
            cost = middle * self.frames
            allowed = cost - self._sum_of_longest(middle, copies) <= self._max_padding * cost
            low, high = np.where(allowed, middle, low), np.where(allowed, high, middle - 1)
        return -(-low // self._ranks)

    def shape(self, length: int, utterances: int) -> Shape:
        """Return the batch of so many utterances, the longest one being of the ``length``-th length."""
        return Shape(utterances, int(self.stretched[length]), int(self.tokens[length]))

    def _copies(self, budget: int) -> int:
        """Return how often a window may hold an utterance: once an epoch of its source, begun epochs included."""
        epochs = self._until_repeated
        window = max(min(FEWEST_BATCHES * budget, epochs.max()), min(MOST_BATCHES * budget, epochs.min()))
        return 1 + int(np.ceil((window + self._late) / epochs).max())

    def _sum_of_longest(self, count: Indices, copies: int) -> NDArray[np.int64]:
        """Return, for each length, the frames of the ``count`` longest utterances that are no longer, (K,)."""
        whole, rest = np.divmod(count, copies)
        first = self._no_longer - whole
        sums = copies * (self._sums[self._no_longer] - self._sums[first])
        total: NDArray[np.int64] = sums + rest * self._sorted[np.maximum(first - 1, 0)]
        return total
