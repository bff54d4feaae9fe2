"""How far confidences can be believed: calibration error, Brier score, cross entropy, and how well they separate."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 10
SURE = 1e-6  # the cross entropy of a confidence of exactly 0 or 1 that errs would be infinite
Floats = NDArray[np.float64]


class Bin(NamedTuple):
    """A tenth of the words, by confidence: its mean, the share that is right, and how many they are."""

    confidence: float
    right: float
    words: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """What confidences of words are worth.

    Attributes:
        words, right: how many words, and the share of them that is right.
        calibration_error: between confidence and share of right words, the mean over ten bins of as many words each.
        brier: the mean squared difference between confidence and being right (1) or wrong (0).
        cross_entropy: normalised as by NIST: 1 knows all, 0 as good as the share of right words for each, below
            that worse.
        area: under the ROC curve, the chance that a right word has more confidence than a wrong one; 0.5 where all
            are right or wrong.
        bins: for a reliability diagram.
    """

    words: int
    right: float
    calibration_error: float
    brier: float
    cross_entropy: float
    area: float
    bins: tuple[Bin, ...]


def reliability(confidences: Sequence[float] | Floats, right: ArrayLike) -> Reliability:
    """Measure confidences in [0, 1] of one word or more against which of them are right."""
    p, y = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    if len(p) == 0:
        raise ValueError("no word to measure")
    bins = tuple(
        Bin(float(p[part].mean()), float(y[part].mean()), len(part))
        for part in np.array_split(np.argsort(p, kind="stable"), min(BINS, len(p)))
    )
    return Reliability(
        words=len(p),
        right=float(y.mean()),
        calibration_error=sum(b.words * abs(b.confidence - b.right) for b in bins) / len(p),
        brier=float(((p - y) ** 2).mean()),
        cross_entropy=_normalised_cross_entropy(p, y),
        area=area(p, y.astype(bool)),
        bins=bins,
    )


def _normalised_cross_entropy(p: Floats, y: Floats) -> float:
    prior = _cross_entropy(np.full_like(p, y.mean()), y)
    return (prior - _cross_entropy(p, y)) / max(prior, SURE)


def _cross_entropy(p: Floats, y: Floats) -> float:
    p = p.clip(SURE, 1 - SURE)
    return -float((y * np.log(p) + (1 - y) * np.log(1 - p)).mean())


def area(p: Floats, right: NDArray[np.bool_]) -> float:
    """Return the share of (right, wrong) pairs in the right order, equals counting half (Mann and Whitney 1947)."""
    good, bad = p[right], np.sort(p[~right])
    if not len(good) or not len(bad):
        return 0.5
    below, upto = np.searchsorted(bad, good, "left"), np.searchsorted(bad, good, "right")
    return float((below + upto).mean() / (2 * len(bad)))
