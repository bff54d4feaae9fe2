"""Estimating a back-off n-gram model over token ids from sequences, without a Python loop over n-grams.

Level n holds every n-gram that occurs. An n-gram is its prefix (an entry of level n-1) and its last token.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raysr.decode.hypothesis import BLANK, EOS

FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)


@dataclass(slots=True)
class Level:
    """The n-grams of one order (G,); indices point into the level below."""

    prefix: NDArray[np.int64]
    token: NDArray[np.int64]
    suffix: NDArray[np.int64]
    log10_prob: NDArray[np.float32]
    log10_backoff: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.token)


@dataclass(slots=True)
class _Counts:
    """One level while it is counted: raw occurrences, and whether the n-gram begins a sentence."""

    prefix: NDArray[np.int64]
    token: NDArray[np.int64]
    suffix: NDArray[np.int64]
    count: NDArray[np.int64]
    at_start: NDArray[np.bool_]


def estimate(sequences: Iterable[Sequence[int]], order: int, vocab_size: int) -> list[Level]:
    """Return levels 1 … at most ``order``; level 1 is indexed by token id, ``vocab_size`` the start.

    Smoothing is interpolated modified Kneser-Ney (Chen & Goodman, 1998); where the counts of counts are too
    few to give its discounts, as with little or artificial text, they are 0.5, 1 and 1.5. Every token but the
    blank gets a share, so that no text is impossible.
    """
    counts = _count(sequences, order, vocab_size)
    uniform = np.full(vocab_size + 1, 1.0 / (vocab_size - 1))
    uniform[[BLANK, vocab_size]] = 0.0
    lower = uniform
    levels: list[Level] = []
    for n, level in enumerate(counts):
        contexts = len(counts[n - 1].token) if n else 1
        above = counts[n + 1] if n + 1 < len(counts) else None
        prob, backoff = _kneser_ney(_continuations(level, above, vocab_size), level, lower, contexts)
        if n == 0:
            prob[[BLANK, vocab_size]] = 0.0
        else:
            levels[-1].log10_backoff = _log10(backoff)
        levels.append(
            Level(level.prefix, level.token, level.suffix, _log10(prob), np.zeros(len(prob), np.float32))
        )
        lower = prob
    return levels


def _count(sequences: Iterable[Sequence[int]], order: int, vocab_size: int) -> list[_Counts]:
    bos, base = vocab_size, vocab_size + 1
    sentences = [np.asarray([bos, *s, EOS], np.int64) for s in sequences]
    text = np.concatenate(sentences) if sentences else np.zeros(0, np.int64)
    if np.any(text <= BLANK) or np.sum(text >= bos) != len(sentences):
        raise ValueError(f"token ids of a language model should be between 1 and {vocab_size - 1}")
    ends = np.repeat(np.cumsum([len(s) for s in sentences]), [len(s) for s in sentences])  # (L,)
    unigrams = np.arange(base)
    levels = [
        _Counts(
            prefix=np.zeros(base, np.int64),
            token=unigrams,
            suffix=unigrams,
            count=np.bincount(text, minlength=base) * (unigrams != bos),
            at_start=unigrams == bos,
        )
    ]
    here = text
    for n in range(2, order + 1):
        positions = np.flatnonzero(np.arange(len(text)) + n <= ends)
        if len(positions) == 0:
            break
        keys, first, inverse, count = np.unique(
            here[positions] * base + text[positions + n - 1],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        prefix, token = np.divmod(keys, base)
        suffix = here[positions[first] + 1]
        levels.append(_Counts(prefix, token, suffix, count, levels[-1].at_start[prefix]))
        here = np.full(len(text), -1)
        here[positions] = inverse.reshape(-1)
    return levels


def _continuations(level: _Counts, above: _Counts | None, bos: int) -> NDArray[np.int64]:
    """Return in how many contexts each n-gram occurs; its occurrences where nothing can precede it."""
    if above is None:
        return level.count
    distinct = np.bincount(above.suffix, minlength=len(level.token))
    return np.where(level.at_start & (level.token != bos), level.count, distinct)


def _kneser_ney(
    count: NDArray[np.int64], level: _Counts, lower: NDArray[np.float64], contexts: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    discount = np.asarray([0.0, *_discounts(count)])[np.minimum(count, 3)]
    total = np.bincount(level.prefix, weights=count, minlength=contexts)
    held_back = np.bincount(level.prefix, weights=discount, minlength=contexts)
    backoff = np.where(total > 0, held_back / np.maximum(total, 1), 1.0)
    seen = (count - discount) / np.maximum(total, 1)[level.prefix]
    return np.minimum(seen + backoff[level.prefix] * lower[level.suffix], 1.0), backoff  # sums may round up


def _discounts(count: NDArray[np.int64]) -> tuple[float, ...]:
    """Return what is taken from n-grams seen once, twice and more often (Chen & Goodman, 1998, eq. 26)."""
    n1, n2, n3, n4 = (int(n) for n in np.bincount(count, minlength=5)[1:5])
    if min(n1, n2, n3) == 0:
        return FALLBACK_DISCOUNTS
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    usable = all(0 < d <= j for j, d in enumerate(found, start=1))
    return found if usable else FALLBACK_DISCOUNTS


def _log10(values: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(divide="ignore"):
        return np.log10(values).astype(np.float32)
