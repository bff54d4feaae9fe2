"""What the prefix beam asks of a language model: states are integers, a question is about many at once."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

States = NDArray[np.int64]


class LanguageModel(Protocol):
    """A model of token sequences whose history is summed up in an integer state."""

    vocab_size: int

    def start(self) -> int:
        """Return the state at the beginning of a sentence."""
        ...

    def score(self, states: States, tokens: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return natural-log probabilities after ``states`` (N,): (N, V), or those of ``tokens`` (N, M)."""
        ...

    def advance(self, states: States, tokens: NDArray[np.int64]) -> States:
        """Return the states (N,) after ``tokens`` (N,) were read in ``states`` (N,)."""
        ...

    def eos(self, states: States) -> NDArray[np.float32]:
        """Return the natural-log probability (N,) that the sentence ends in ``states`` (N,)."""
        ...


def log_prob(lm: LanguageModel, tokens: Sequence[int]) -> float:
    """Return the natural-log probability of a whole sentence, its end included."""
    state, total = np.asarray([lm.start()]), 0.0
    for token in tokens:
        total += float(lm.score(state, np.asarray([[token]]))[0, 0])
        state = lm.advance(state, np.asarray([token]))
    return total + float(lm.eos(state)[0])
