"""How the memory of a training step grows with its batch."""

from collections.abc import Sequence
from itertools import chain, combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raysr.train.memory.shapes import Shape


class Growth:
    """A step takes c + utterances x (a x frames + b x frames² + d x tokens), no coefficient below 0.

    That is what is there anyway, layers over frames, attention between frames, and the decoder: exact in the number
    of utterances, and near enough in their lengths to say which batch is to be measured next.

    Args:
        points: shapes, and the bytes that they were measured to take.
    """

    def __init__(self, points: Sequence[tuple[Shape, int]]) -> None:
        shapes, peaks = zip(*points, strict=True)
        terms, taken = _terms(*np.array(shapes).T), np.array(peaks, dtype=float)
        scale = np.maximum(terms.max(axis=0), 1.0)
        best, self.coefficients = np.inf, np.zeros(len(scale))
        # least squares under that bound is free least squares of some of the terms, and the others 0
        for kept in map(list, chain.from_iterable(combinations(range(4), size) for size in range(1, 5))):
            chosen = terms[:, kept] / scale[kept]
            fitted = np.linalg.lstsq(chosen, taken, rcond=None)[0]
            off = float(np.square(chosen @ fitted - taken).sum())
            if (fitted >= 0).all() and off < best:
                best, self.coefficients = off, np.zeros(len(scale))
                self.coefficients[kept] = fitted / scale[kept]

    def peak(self, utterances: ArrayLike, frames: ArrayLike, tokens: ArrayLike) -> NDArray[np.float64]:
        """Return the bytes that batches of these shapes take, of the arguments' common shape."""
        taken: NDArray[np.float64] = _terms(utterances, frames, tokens) @ self.coefficients
        return taken


def _terms(utterances: ArrayLike, frames: ArrayLike, tokens: ArrayLike) -> NDArray[np.float64]:
    """Return what the coefficients are multiplied by, (…, 4)."""
    b, t, u = (np.asarray(part, dtype=float) for part in (utterances, frames, tokens))
    return np.stack(np.broadcast_arrays(1.0, b * t, b * t * t, b * u), axis=-1)
