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
from raysr.decode.hypothesis import EOS
from raysr.decode.language_model import States
from raysr.decode.ngram_estimate import Level, estimate

DENSE_ENTRIES = 1 << 24
LN10 = float(np.log(10.0))


class Ngram:
    """An n-gram model whose states are its contexts; see :class:`raysr.decode.language_model.LanguageModel`.

    A state is the longest context the model knows of what was read. Where states × vocabulary is small enough
    (``DENSE_ENTRIES``) both tables are laid out in full and a question is one gather; larger models are
    searched. The blank has no probability; those of all other tokens, eos among them, sum to one.
    """

    def __init__(self, levels: Sequence[Level], vocab_size: int) -> None:
        self.levels = list(levels)
        self.order = len(self.levels)
        self.vocab_size = vocab_size
        self._index_states()
        self._dense = self._lay_out() if len(self) * vocab_size <= DENSE_ENTRIES else None

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
        return len(self._backoff_state)

    def start(self) -> int:
        """Return the state at the beginning of a sentence."""
        return self._start

    def score(self, states: States, tokens: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return natural-log probabilities: (N, V), or those of ``tokens`` (N, M); ``-inf`` for the blank."""
        if self._dense is not None:
            rows = self._dense[0]
            return rows[states] if tokens is None else rows[states[:, None], tokens]
        if tokens is None:
            tokens = np.broadcast_to(np.arange(self.vocab_size), (len(states), self.vocab_size))
        return self._search(states[:, None], tokens)[0]

    def distribution(self, state: int) -> NDArray[np.float32]:
        """Return what :meth:`score` returns for one state (V,), fast also for the vocabulary of a word model."""
        contexts = [state]
        while contexts[-1]:
            contexts.append(int(self._backoff_state[contexts[-1]]))
        row = np.zeros(self.vocab_size, np.float32)
        for context in contexts[::-1]:
            row += self._backoff[context]
            low, high = np.searchsorted(
                self._keys, (context * self.vocab_size, (context + 1) * self.vocab_size)
            )
            row[self._keys[low:high] - context * self.vocab_size] = self._log_probs[low:high]
        return row

    def advance(self, states: States, tokens: NDArray[np.int64]) -> States:
        """Return the states (N,) that follow ``states`` (N,) after ``tokens`` (N,)."""
        if self._dense is not None:
            return self._dense[1][states, tokens].astype(np.int64)
        return self._search(states, tokens)[1]

    def eos(self, states: States) -> NDArray[np.float32]:
        """Return the natural-log probability (N,) that the sentence ends here."""
        return self.score(states, np.full((len(states), 1), EOS))[:, 0]

    def _index_states(self) -> None:
        """Number the contexts, shortest first, and sort what is known of each by (state, token)."""
        bos = self.vocab_size
        state_of, states = [np.zeros(1, np.int64)], 1
        backoff_state, backoff, depth_ends = [np.zeros(1, np.int64)], [np.zeros(1, np.float32)], [1]
        keys, log_probs, following = [], [], []
        for n, level in enumerate(self.levels):
            is_context = np.zeros(len(level), bool)
            if n + 1 < self.order:
                is_context[self.levels[n + 1].prefix] = True
            shorter = state_of[-1][level.suffix if n else np.zeros(len(level), np.int64)]
            own = states + np.cumsum(is_context) - 1
            state_of.append(np.where(is_context, own, shorter))
            states += int(is_context.sum())
            backoff_state.append(shorter[is_context])
            backoff.append(level.log10_backoff[is_context])
            depth_ends.append(states)
            spoken = level.token != bos
            keys.append((state_of[n][level.prefix] * self.vocab_size + level.token)[spoken])
            log_probs.append(level.log10_prob[spoken])
            following.append(state_of[-1][spoken])
        self._start = int(state_of[1][bos])
        self._depth_ends = depth_ends
        self._backoff_state = np.concatenate(backoff_state)
        self._backoff = np.concatenate(backoff) * np.float32(LN10)
        order = np.argsort(np.concatenate(keys), kind="stable")
        self._keys = np.concatenate(keys)[order]
        self._log_probs = np.concatenate(log_probs)[order] * np.float32(LN10)
        self._following = np.concatenate(following)[order]

    def _lay_out(self) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Fill (S, V) tables of log-probabilities and next states, a context from the one it backs off to."""
        shape = (len(self), self.vocab_size)
        scores, following = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
        begin = 0
        for end in self._depth_ends:
            shorter = self._backoff_state[begin:end]
            scores[begin:end] = scores[shorter] + self._backoff[begin:end, None]
            following[begin:end] = following[shorter]
            low, high = np.searchsorted(self._keys, (begin * self.vocab_size, end * self.vocab_size))
            scores.reshape(-1)[self._keys[low:high]] = self._log_probs[low:high]
            following.reshape(-1)[self._keys[low:high]] = self._following[low:high]
            begin = end
        return scores, following

    def _search(
        self, states: States, tokens: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Look up log-probabilities and next states of ``tokens`` in ``states`` (broadcast together)."""
        states, tokens = (np.array(a) for a in np.broadcast_arrays(states, tokens))
        shape, state, token = states.shape, states.reshape(-1), tokens.reshape(-1)
        log_probs, following = np.zeros(len(state), np.float32), np.zeros(len(state), np.int64)
        open_ = np.arange(len(state))
        while len(open_):
            key = state[open_] * self.vocab_size + token[open_]
            place = np.minimum(np.searchsorted(self._keys, key), len(self._keys) - 1)
            found = self._keys[place] == key
            log_probs[open_[found]] += self._log_probs[place[found]]
            following[open_[found]] = self._following[place[found]]
            open_ = open_[~found]
            log_probs[open_] += self._backoff[state[open_]]
            state[open_] = self._backoff_state[state[open_]]
        return log_probs.reshape(shape), following.reshape(shape)
