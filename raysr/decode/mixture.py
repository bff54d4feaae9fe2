"""Several n-gram models as one: the weighted sum of their probabilities."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from raysr.decode.language_model import States
from raysr.decode.ngram import Ngram


class Mixture:
    """Linear interpolation of n-grams over one vocabulary (Jelinek & Mercer, 1980).

    A state is the models' states in one number. See :class:`raysr.decode.language_model.LanguageModel`.
    """

    def __init__(self, models: Sequence[Ngram], weights: Sequence[float]) -> None:
        """Take models and their weights; ValueError unless vocabularies agree and weights sum to one."""
        if len({model.vocab_size for model in models}) != 1:
            raise ValueError("the models of a mixture share one vocabulary")
        if len(weights) != len(models) or min(weights) <= 0 or not math.isclose(sum(weights), 1):
            raise ValueError("every model of a mixture needs a weight above 0, and their sum is 1")
        self.models, self.weights = list(models), [float(weight) for weight in weights]
        self.vocab_size = models[0].vocab_size

    def __len__(self) -> int:
        """Return one more than the largest state."""
        return math.prod(len(model) for model in self.models)

    def start(self) -> int:
        return int(self._join([np.asarray(model.start()) for model in self.models]))

    def score(self, states: States, tokens: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        return self._mix([model.score(own, tokens) for model, own in self._parts(states)])

    def advance(self, states: States, tokens: NDArray[np.int64]) -> States:
        return self._join([model.advance(own, tokens) for model, own in self._parts(states)])

    def eos(self, states: States) -> NDArray[np.float32]:
        return self._mix([model.eos(own) for model, own in self._parts(states)])

    def _mix(self, scores: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        parts = (np.float32(weight) * np.exp(s) for weight, s in zip(self.weights, scores, strict=True))
        with np.errstate(divide="ignore"):
            return np.log(sum(parts))

    def _parts(self, states: States) -> Iterator[tuple[Ngram, States]]:
        return zip(self.models, self._split(states), strict=True)

    def _split(self, states: States) -> list[States]:
        parts = []
        for model in self.models[:0:-1]:
            states, own = np.divmod(states, len(model))
            parts.append(own)
        return [states, *parts[::-1]]

    def _join(self, parts: Sequence[States]) -> States:
        joined = parts[0]
        for model, own in zip(self.models[1:], parts[1:], strict=True):
            joined = joined * len(model) + own
        return joined
