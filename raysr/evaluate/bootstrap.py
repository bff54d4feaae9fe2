"""Paired bootstrap intervals over utterances (Bisani and Ney, ICASSP 2004), for WER and what is made of it.

Errors come as an array (S, N): runs (seeds) by utterances, the same utterances in every system compared. Runs
are pooled: a draw takes an utterance with all its runs and all its systems, so the comparison stays paired.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
MANY = 20_000
"""Utterances of which a bootstrap would take minutes, and an interval of a normal distribution is as good."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate from all utterances, and the percentile interval of its bootstrap distribution."""

    estimate: float
    low: float
    high: float


def wer_interval(
    errors: ArrayLike, words: ArrayLike, draws: int = 10_000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return WER with its interval; ``errors`` (S, N) or (N,), ``words`` (N,) of the references."""
    return bootstrap([pool_runs(errors), _runs(errors) * _floats(words)], _ratio, draws, level, seed)


def quick_interval(errors: ArrayLike, words: ArrayLike, level: float = 0.95) -> Interval:
    """Return a ratio, such as errors by words, with its normal interval (Cochran 1977, 6.4): at once, of very many.

    Of 200 utterances or more it is about that of the bootstrap; of few it may go below 0. ValueError without a word.
    """
    wrong, lengths = _floats(errors), _floats(words)
    if not lengths.sum():
        raise ValueError("no word to be wrong about")
    rate = float(wrong.sum() / lengths.sum())
    count = len(wrong)
    spread = float(((wrong - rate * lengths) ** 2).sum()) * count / max(1, count - 1)
    half = NormalDist().inv_cdf((1 + level) / 2) * spread**0.5 / float(lengths.sum())
    return Interval(rate, rate - half, rate + half)


def difference_interval(
    errors: ArrayLike,
    other: ArrayLike,
    words: ArrayLike,
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return WER(errors) − WER(other) with its paired interval; both (S, N) or (N,), of as many runs."""
    if _runs(errors) != _runs(other):
        raise ValueError(f"{_runs(errors)} runs cannot be paired with {_runs(other)}")
    gained = pool_runs(errors) - pool_runs(other)
    return bootstrap([gained, _runs(errors) * _floats(words)], _ratio, draws, level, seed)


def recovery_interval(
    control: ArrayLike,
    student: ArrayLike,
    oracle: ArrayLike,
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return WRR = Σ(control − student) / Σ(control − oracle) with its paired interval.

    Errors are (S, N) or (N,). A draw in which the oracle is no better than the control has no WRR: it counts
    against the system, at the far low end of the distribution.
    """
    if not _runs(control) == _runs(student) == _runs(oracle):
        raise ValueError("control, student and oracle need as many runs each")

    def ratio(gained: Floats, gap: Floats) -> Floats:
        return np.divide(gained, gap, out=np.full_like(gained, -np.inf), where=gap > 0)

    gained = pool_runs(control) - pool_runs(student)
    gap = pool_runs(control) - pool_runs(oracle)
    return bootstrap([gained, gap], ratio, draws, level, seed)


def bootstrap(
    columns: list[Floats], statistic: Callable[..., Floats], draws: int, level: float, seed: int
) -> Interval:
    """Resample utterances and return the percentile interval of ``statistic`` of the columns' sums.

    Args:
        columns: K arrays (N,), one value an utterance.
        statistic: maps K arrays (D,) of sums, one a draw, to (D,); NaN where a draw says nothing.
        draws: number of resamples D.
        level: probability the interval should hold.
        seed: of the resampling.
    """
    table = np.stack(columns, axis=1)  # (N, K)
    utterances = len(table)
    if not utterances:
        raise ValueError("no utterance to resample")
    generator = np.random.default_rng(seed)
    block = max(1, 4_000_000 // utterances)  # bounds the matrix of drawn counts at 32 MB
    sums = np.concatenate(
        [
            generator.multinomial(utterances, np.full(utterances, 1 / utterances), min(block, draws - done))
            @ table
            for done in range(0, draws, block)
        ]
    )  # (D, K)
    values = statistic(*sums.T)
    values = values[~np.isnan(values)]
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail], method="inverted_cdf")
    (estimate,) = statistic(*table.sum(axis=0, keepdims=True).T)
    return Interval(float(estimate), float(low), float(high))


def _ratio(errors: Floats, words: Floats) -> Floats:
    """Divide (D,) by (D,); a draw without a word has no rate."""
    return np.divide(errors, words, out=np.full_like(errors, np.nan), where=words > 0)


def pool_runs(errors: ArrayLike) -> Floats:
    """Sum the errors of all runs: (S, N) or (N,) → (N,)."""
    return np.atleast_2d(_floats(errors)).sum(axis=0)


def _runs(errors: ArrayLike) -> int:
    return len(np.atleast_2d(_floats(errors)))


def _floats(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64)
