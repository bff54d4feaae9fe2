"""Whether one system is better than another on the same utterances: the difference, its interval, and chance."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raysr.evaluate.bootstrap import MANY, Interval, difference_interval, quick_interval

EXACT = 12
"""Up to so many differences all their signs are tried."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A system against another one, paired by utterance.

    Attributes:
        wer, other: their error rates, as fractions.
        difference: ``wer − other`` with its paired bootstrap interval; below 0 where the first is better.
        p: the chance of a difference as large, either way, if it were all the same which system an utterance was
            given to (a paired permutation test, as of Good 2005).
        fewer, more: utterances in which the first has fewer errors than the other, and more.
    """

    wer: float
    other: float
    difference: Interval
    p: float
    fewer: int
    more: int


def compare(
    errors: ArrayLike,
    other: ArrayLike,
    words: ArrayLike,
    units: Sequence[Hashable] | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare the errors (N,) of two systems in utterances of ``words`` (N,) words in all.

    Args:
        units: what each utterance belongs to, such as its speaker, where utterances of one are alike: they are drawn
            and swapped together (blockwise bootstrap, Liu and Peng 2020).
        draws: of the bootstrap and of the permutations.
        seed: of both.

    Of more than :data:`MANY` units the interval is the normal one of a ratio.

    Raises:
        ValueError: no word to be wrong about.
    """
    first, second, lengths = (np.asarray(column, np.float64) for column in (errors, other, words))
    if not lengths.sum():
        raise ValueError("no word to compare by")
    gained = first - second
    wrong, theirs, spoken = (by_unit(column, units) for column in (first, second, lengths))
    return Comparison(
        wer=float(first.sum() / lengths.sum()),
        other=float(second.sum() / lengths.sum()),
        difference=_difference(wrong, theirs, spoken, draws, seed),
        p=permutation_p(by_unit(gained, units), draws, seed),
        fewer=int((gained < 0).sum()),
        more=int((gained > 0).sum()),
    )


def _difference(errors: Floats, other: Floats, words: Floats, draws: int, seed: int) -> Interval:
    if len(words) > MANY:
        return quick_interval(errors - other, words)
    return difference_interval(errors, other, words, draws=draws, seed=seed)


def by_unit(values: ArrayLike, units: Sequence[Hashable] | None) -> Floats:
    """Sum values (N,) by what they belong to: (N,) → (U,); as they are without units."""
    column = np.asarray(values, np.float64)
    if units is None:
        return column
    numbers: dict[Hashable, int] = {}
    places = [numbers.setdefault(unit, len(numbers)) for unit in units]
    sums = np.zeros(len(numbers))
    np.add.at(sums, places, column)
    return sums


def permutation_p(differences: ArrayLike, draws: int = 10_000, seed: int = 0) -> float:
    """Return how often the sum of differences (N,), each with either sign, is as far from 0 as it is: two-sided.

    Exact for few differences; otherwise by draws, the one at hand counting among them.
    """
    found = np.asarray(differences, np.float64)
    found = found[found != 0]
    if not len(found):
        return 1.0
    if len(found) <= EXACT:
        signs = np.array(np.meshgrid(*[(-1.0, 1.0)] * len(found))).reshape(len(found), -1)  # (N, 2^N)
        return float((np.abs(found @ signs) >= abs(found.sum()) - 1e-9).mean())
    generator = np.random.default_rng(seed)
    block, far = max(1, 4_000_000 // len(found)), 0
    for done in range(0, draws, block):
        signs = 2.0 * generator.integers(2, size=(min(block, draws - done), len(found))) - 1.0
        far += int((np.abs(signs @ found) >= abs(found.sum()) - 1e-9).sum())
    return (far + 1) / (draws + 1)
