"""KenLM's models over the tokeniser's pieces, for files too large to be read as ARPA text (Heafield, 2011).

The module ``kenlm`` is asked; it is not among raysr's requirements, since installing it takes a C++ compiler.
"""

import shutil
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysr.decode.hypothesis import BLANK, EOS
from raysr.decode.language_model import States
from raysr.decode.ngram import LN10
from raysr.errors import ConfigError, PoolError
from raysr.text.tokeniser import UNKNOWN

ANSWER_BYTES, FEWEST_ROWS = 1 << 26, 16


class KenLm:
    """An implementation of :class:`raysr.decode.language_model.LanguageModel`; pickled as its path and pieces.

    A state is the last order - 1 tokens, the digits of one number, so that nothing has to be remembered of the
    states that a search holds: KenLM's own are made anew from the tokens. Its answers are kept until
    ``ANSWER_BYTES`` are full, and then asked for again. The probability of ``<unk>`` is shared out equally among it
    and the pieces that the model lacks.
    """

    def __init__(self, path: str | Path, pieces: Sequence[str]) -> None:
        """Open a model file, binary or ARPA.

        Args:
            path: of the file, which has to stay where it is.
            pieces: how each token is spelt there; those of blank, unknown and eos are not looked at.

        Raises:
            ConfigError: the module is not installed, or histories of this order and vocabulary do not fit a number.
            PoolError: the file cannot be read, or has none of the pieces.
        """
        self.path, self.pieces = Path(path), list(pieces)
        self.vocab_size = len(self.pieces)
        self._kenlm = _module()
        try:
            self._model = self._kenlm.Model(str(self.path))
        except OSError as error:
            raise PoolError(f"{self.path}: not a language model of KenLM ({error})") from None
        known = [piece in self._model for piece in self.pieces]
        if not any(known[EOS + 1 :]):
            raise PoolError(f"{self.path}: none of its words is a piece of the tokeniser")
        self._words = [piece if k else "<unk>" for piece, k in zip(self.pieces, known, strict=True)]
        self._words[UNKNOWN], self._words[EOS] = "<unk>", "</s>"
        shared = np.asarray([word == "<unk>" for word in self._words])
        shared[BLANK] = False
        self._less = np.where(shared, np.log(shared.sum()), 0.0)
        self.order = int(self._model.order)
        self._base = self.vocab_size + 1
        self._states = self._base ** (self.order - 1)
        if self._states >= 1 << 63:
            raise ConfigError(
                f"{self.path}: order {self.order} over {self.vocab_size} tokens has more histories than fit a number"
            )
        self._capacity = max(FEWEST_ROWS, ANSWER_BYTES // (4 * self.vocab_size))
        self._lock, self._scratch = threading.Lock(), self._kenlm.State()
        self._row: dict[int, int] = {}
        self._contexts: list[Any] = []
        self._answers = np.zeros((0, self.vocab_size), np.float32)

    def start(self) -> int:
        """Return the state at the beginning of a sentence."""
        return self.vocab_size % self._states

    def score(self, states: States, tokens: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return natural-log probabilities: (N, V), or those of ``tokens`` (N, M); ``-inf`` for the blank."""
        if tokens is None:
            tokens = np.broadcast_to(np.arange(self.vocab_size), (len(states), self.vocab_size))
        with self._lock:
            rows = self._rows(states)[:, None]  # (N, 1)
            unasked = np.isnan(self._answers[rows, tokens])
            for place in np.unique((rows * self.vocab_size + tokens)[unasked]).tolist():
                row, token = divmod(place, self.vocab_size)
                self._answers[row, token] = self._ask(row, token)
            return self._answers[rows, tokens]

    def advance(self, states: States, tokens: NDArray[np.int64]) -> States:
        """Return the states (N,) that follow ``states`` (N,) after ``tokens`` (N,)."""
        newest = states % max(1, self._states // self._base)
        return (newest * self._base + tokens) % self._states

    def eos(self, states: States) -> NDArray[np.float32]:
        """Return the natural-log probability (N,) that the sentence ends here."""
        return self.score(states, np.full((len(states), 1), EOS))[:, 0]

    def save(self, path: str | Path) -> None:
        """Copy the model file."""
        shutil.copyfile(self.path, path)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.pieces)

    def _rows(self, states: States) -> NDArray[np.int64]:
        """Return the rows (N,) that hold the answers of ``states`` (N,)."""
        asked, places = np.unique(states, return_inverse=True)
        missing = [state for state in asked.tolist() if state not in self._row]
        if len(self._row) + len(missing) > self._capacity:
            self._row, self._contexts, missing = {}, [], asked.tolist()
            self._answers = self._answers[:0]
        for state in missing:
            self._row[state] = len(self._contexts)
            self._contexts.append(self._context(state))
        if len(self._contexts) > len(self._answers):
            more = max(len(self._contexts) - len(self._answers), len(self._answers))
            unasked = np.full((more, self.vocab_size), np.nan, np.float32)
            unasked[:, BLANK] = -np.inf
            self._answers = np.concatenate([self._answers, unasked])
        return np.asarray([self._row[state] for state in asked.tolist()], np.int64)[places.reshape(-1)]

    def _context(self, state: int) -> Any:
        """Return KenLM's state after the tokens that are the digits of ``state``."""
        digits = []
        while state:
            state, digit = divmod(state, self._base)
            digits.append(digit)
        context, after = self._kenlm.State(), self._kenlm.State()
        if digits and digits[-1] == self.vocab_size:
            digits.pop()
            self._model.BeginSentenceWrite(context)
        else:
            self._model.NullContextWrite(context)
        for token in reversed(digits):
            self._model.BaseScore(context, self._words[token], after)
            context, after = after, context
        return context

    def _ask(self, row: int, token: int) -> float:
        score = self._model.BaseScore(self._contexts[row], self._words[token], self._scratch)
        return float(LN10 * score - self._less[token])


def _module() -> Any:
    try:
        return import_module("kenlm")
    except ImportError:
        raise ConfigError(
            "lm.kenlm: the module kenlm is not installed; pip install kenlm, which takes a C++ compiler"
        ) from None
