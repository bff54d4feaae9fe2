"""Cutting utterances into batches: like lengths together, no more frames and padding than allowed.

Lengths are in feature frames. A batch costs its longest utterance times their number, which is what a padded
tensor holds; its padding share is the part of that which is no utterance's.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

JITTER = 0.1
EXTRA_BATCHES = 1.1


def plan(
    frames: Indices, groups: Indices, budget: int, max_padding: float, rng: np.random.Generator
) -> list[Indices]:
    """Return the batches of a window of utterances, in random order, as positions into ``frames``.

    Every batch holds each group in its share of the window where the groups have like lengths: neighbours are
    utterances at the same quantile of their group's lengths. Where lengths differ so much that this would take
    a tenth more batches, neighbours are of like length whatever their group. Lengths are jittered, so that an
    utterance meets others the next time.

    Args:
        frames: length of each utterance, (N,).
        groups: which of the sources it is from, (N,).
        budget: the most that a batch of two or more may cost.
        max_padding: the largest padding share of a batch, in [0, 1).
        rng: of the jitter and of the batches' order.
    """
    jittered = frames * rng.uniform(1 - JITTER, 1 + JITTER, len(frames))
    by_length = np.argsort(jittered, kind="stable")
    batches = cut(frames, by_length, budget, max_padding)
    if groups.min() != groups.max():
        by_quantile = np.argsort(_quantiles(jittered, groups), kind="stable")
        mixed = cut(frames, by_quantile, budget, max_padding)
        batches = mixed if len(mixed) <= EXTRA_BATCHES * len(batches) else batches
    return [batches[i] for i in rng.permutation(len(batches))]


def cut(frames: Indices, order: Indices, budget: int, max_padding: float) -> list[Indices]:
    """Cut utterances, taken in ``order``, each batch as long as it can be, then made alike in cost."""
    lengths = frames[order].tolist()
    ends = _cut(lengths, budget, max_padding)
    low, high = max(1, budget // 2), budget
    while low < high:  # the smallest budget for as many batches: no batch is a remnant of the others
        middle = (low + high) // 2
        found = _cut(lengths, middle, max_padding)
        if len(found) <= len(ends):
            ends, high = found, middle
        else:
            low = middle + 1
    return np.split(order, ends[:-1])


def _cut(lengths: Sequence[int], budget: int, max_padding: float) -> list[int]:
    """Return where each batch ends, each as long as it can be."""
    ends, first, longest, total = [], 0, 0, 0
    for place, length in enumerate(lengths):
        longest_with, total_with = max(longest, length), total + length
        cost = longest_with * (place + 1 - first)
        if place > first and (cost > budget or cost - total_with > max_padding * cost):
            ends.append(place)
            first, longest_with, total_with = place, length, length
        longest, total = longest_with, total_with
    return [*ends, len(lengths)]


def _quantiles(lengths: NDArray[np.float64], groups: Indices) -> NDArray[np.float64]:
    """Return where each utterance stands among its group's lengths, in (0, 1)."""
    places = np.empty(len(lengths))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        ranks = np.argsort(np.argsort(lengths[members], kind="stable"))
        places[members] = (ranks + 0.5) / len(members)
    return places
