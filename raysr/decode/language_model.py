"""What a search asks of a language model: states are integers, a question is about many at once."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

States = NDArray[np.int64]


class FusedModel(Protocol):
    """What a language model and the boosted phrases of a batch have in common, once they have begun."""

    vocab_size: int

    def score(self, states: States, tokens: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return natural-log probabilities, or bonuses, after ``states`` (N,): (N, V), or of ``tokens`` (N, M)."""
        ...

    def advance(self, states: States, tokens: NDArray[np.int64]) -> States:
        """Return the states (N,) after ``tokens`` (N,) were read in ``states`` (N,)."""
        ...

    def eos(self, states: States) -> NDArray[np.float32]:
        """Return the same (N,) of the end of the sentence in ``states`` (N,)."""
        ...


class LanguageModel(FusedModel, Protocol):
    """A model of token sequences whose history is summed up in an integer state; its scores are probabilities."""

    def start(self) -> int:
        """Return the state at the beginning of a sentence."""
        ...


def log_prob(lm: LanguageModel, tokens: Sequence[int]) -> float:
    """Return the natural-log probability of a whole sentence, its end included."""
    return float(log_probs(lm, [tokens])[0])


def log_probs(lm: LanguageModel, sentences: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Return the natural-log probabilities (N,) of whole sentences, their ends included; all are asked at once."""
    lengths = np.asarray([len(tokens) for tokens in sentences], np.int64)
    padded = np.zeros((len(sentences), int(lengths.max(initial=0))), np.int64)
    for row, tokens in zip(padded, sentences, strict=True):
        row[: len(tokens)] = tokens
    states, total = np.full(len(sentences), lm.start(), np.int64), np.zeros(len(sentences))
    for n in range(padded.shape[1]):
        goes_on = lengths > n
        tokens = padded[goes_on, n]
        total[goes_on] += lm.score(states[goes_on], tokens[:, None])[:, 0]
        states[goes_on] = lm.advance(states[goes_on], tokens)
    return total + lm.eos(states)
