"""A back-off n-gram language model over token ids, asked about many states at once.

With characters and an order of 8 to 12 it takes the place of a lexicon and a word bigram, yet leaves the
vocabulary open: a name that was never seen is unlikely, not impossible.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from raysr.decode import arpa
from raysr.decode.backoff import Automaton
from raysr.decode.hypothesis import EOS
from raysr.decode.language_model import States
from raysr.decode.ngram_estimate import Level, estimate

LN10 = float(np.log(10.0))


class Ngram:
    """An n-gram model whose states are its contexts; see :class:`raysr.decode.language_model.LanguageModel`.

    A state is the longest context the model knows of what was read. The blank has no probability; those of all other
    tokens, eos among them, sum to one.
    """

    def __init__(self, levels: Sequence[Level], vocab_size: int) -> None:
        self.levels = list(levels)
        self.order = len(self.levels)
        self.vocab_size = vocab_size
        self.automaton, self._start = _automaton(self.levels, vocab_size)

    @classmethod
    def train(
        cls,
        sequences: Iterable[Sequence[int]],
        order: int,
        vocab_size: int,
    ) -> Self:
        """Estimate a model from token sequences without blank and eos; see ``ngram_estimate.estimate``."""
        return cls(estimate(sequences, order, vocab_size), vocab_size)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an ARPA file; raise :class:`raysr.errors.PoolError` naming the line that cannot be read."""
        return cls(*arpa.read(Path(path)))

    def save(self, path: str | Path) -> None:
        """Write an ARPA file (gzip if its name ends in .gz); the words in it are the decimal token ids."""
        arpa.write(Path(path), self.levels, self.vocab_size)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.levels, self.vocab_size)

    def __len__(self) -> int:
        """Return the number of states."""
        return self.automaton.size

    def start(self) -> int:
        """Return the state at the beginning of a sentence."""
        return self._start

    def score(self, states: States, tokens: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return natural-log probabilities: (N, V), or those of ``tokens`` (N, M); ``-inf`` for the blank."""
        if tokens is None:
            return self.automaton.rows(states, self.vocab_size)
        return self.automaton.walk(states, tokens)[0]

    def advance(self, states: States, tokens: NDArray[np.int64]) -> States:
        """Return the states (N,) that follow ``states`` (N,) after ``tokens`` (N,)."""
        return self.automaton.walk(states, tokens[:, None])[1][:, 0]

    def eos(self, states: States) -> NDArray[np.float32]:
        """Return the natural-log probability (N,) that the sentence ends here."""
        return self.score(states, np.full((len(states), 1), EOS))[:, 0]


def _automaton(levels: Sequence[Level], vocab_size: int) -> tuple[Automaton, int]:
    """Number the contexts, shortest first; return also the state of ``<s>``."""
    bos = vocab_size
    state_of, states = [np.zeros(1, np.int64)], 1
    shorter, backoff = [np.zeros(1, np.int64)], [np.zeros(1, np.float32)]
    source, token, score, following = [], [], [], []
    for n, level in enumerate(levels):
        is_context = np.zeros(len(level), bool)
        if n + 1 < len(levels):
            is_context[levels[n + 1].prefix] = True
        suffix = state_of[-1][level.suffix if n else np.zeros(len(level), np.int64)]
        own = states + np.cumsum(is_context) - 1
        state_of.append(np.where(is_context, own, suffix))
        states += int(is_context.sum())
        shorter.append(suffix[is_context])
        backoff.append(level.log10_backoff[is_context])
        spoken = level.token != bos
        source.append(state_of[n][level.prefix][spoken])
        token.append(level.token[spoken])
        score.append(level.log10_prob[spoken])
        following.append(state_of[-1][spoken])
    automaton = Automaton.of(
        source=np.concatenate(source),
        token=np.concatenate(token),
        score=np.concatenate(score) * np.float32(LN10),
        following=np.concatenate(following),
        backoff=np.concatenate(backoff) * np.float32(LN10),
        shorter=np.concatenate(shorter),
    )
    return automaton, int(state_of[1][bos])
