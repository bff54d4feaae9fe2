"""A word n-gram that is asked token by token, with a token n-gram for the words it does not know.

A token n-gram alone hardly tells a word from its misspelling ("mounday"). Here the tokens inside a word share
out the word n-gram's probability of all words that begin so (look-ahead, Ortmanns et al., 1996; with an open
vocabulary as of Hori et al., 2017, arXiv:1706.02737 and arXiv:1808.02608), and at every token a small part of it
is the token n-gram's: whoever goes where no word goes is the token n-gram's until the word ends.
"""

import json
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from raysr.decode.hypothesis import EOS
from raysr.decode.language_model import States
from raysr.decode.lexicon import FIRST_WORD, ROOT, Lexicon
from raysr.decode.mixture import Mixture
from raysr.decode.ngram import Ngram
from raysr.decode.ngram_estimate import Level
from raysr.errors import ConfigError, PoolError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MASS_BYTES, FEWEST_ROWS = 1 << 26, 16
SMALLEST = 1e-13  # of a word's probability: sums up to 1 still tell it from none


class WordNgram:
    """See the module; an implementation of :class:`raysr.decode.language_model.LanguageModel`.

    With ε = ``escape``, a word history h, the word's tokens so far u, and w's probability P(w | h) among the
    words of the lexicon, the next token t within the word has the probability

        (1 - ε) · P(words that begin with ut | h) / P(words that begin with u | h) + ε · p(t | token history)

    and what is left is the word's end, be it that the sentence ends or that another word begins. Outside the
    lexicon ε is 1. A state is word history, node of the lexicon and token history in one number.
    """

    def __init__(
        self, tokens: Ngram, words: Mixture, lexicon: Lexicon, begins: Sequence[int], escape: float
    ) -> None:
        """Put a model together.

        Args:
            tokens: for what the lexicon does not hold.
            words: over the lexicon's word ids.
            lexicon: the words, spelt in the tokens.
            begins: the tokens that a word begins with.
            escape: the token n-gram's share of every token, between 0 and 1.

        Raises:
            ValueError: the parts do not belong together.
            ConfigError: they have more states than fit a number.
        """
        if words.vocab_size != len(lexicon) + FIRST_WORD:
            raise ValueError(f"{words.vocab_size} words of the n-gram, {len(lexicon)} in the lexicon")
        if any((token in begins) != (n == 0) for s in lexicon.spellings for n, token in enumerate(s)):
            raise ValueError(f"every word should begin with one of {sorted(begins)}, and hold no further one")
        if not 0 < escape < 1:
            raise ValueError(f"escape is {escape}, it lies between 0 and 1")
        if len(words) * (lexicon.out + 1) * len(tokens) >= 1 << 63:
            raise ConfigError(
                f"lm: {len(words)} word histories, {len(lexicon)} words and {len(tokens)} token histories "
                "are too many for one model; take smaller orders, less text, or a higher at_least"
            )
        self.tokens, self.words, self.lexicon, self.escape = tokens, words, lexicon, float(escape)
        self.vocab_size = tokens.vocab_size
        self.begins = np.asarray(sorted(begins), np.int64)
        self._begins = np.zeros(self.vocab_size, bool)
        self._begins[self.begins] = True
        self._masses = _Masses(words, lexicon)
        self._first_words = lexicon.children(np.asarray([ROOT]))[1:]

    def start(self) -> int:
        """Return the state at the beginning of a sentence."""
        return int(
            self._join(*(np.asarray(part) for part in (self.words.start(), ROOT, self.tokens.start())))
        )

    def score(self, states: States, tokens: Integers | None = None) -> NDArray[np.float32]:
        """Return natural-log probabilities (N, V), or those of ``tokens`` (N, M); ``-inf`` for the blank."""
        history, node, context = self._split(states)
        by_token = np.exp(self.tokens.score(context).astype(np.float64))
        share = np.where(node == self.lexicon.out, 1.0, self.escape)
        out = share[:, None] * by_token
        beginning = by_token[:, self.begins]
        ends = share * (beginning.sum(axis=1) + by_token[:, EOS])
        ends += self._spell_on(history, node, out)
        after = self._after(history, node)
        stops = np.exp(self.words.eos(after).astype(np.float64))
        out[:, EOS] = ends * stops
        out[:, self.begins] = (ends * (1 - stops))[:, None] * self._first_token(after, beginning)
        with np.errstate(divide="ignore"):
            scores = np.log(out).astype(np.float32)
        return scores if tokens is None else np.take_along_axis(scores, tokens, axis=1)

    def advance(self, states: States, tokens: Integers) -> States:
        """Return the states (N,) that follow ``states`` (N,) after ``tokens`` (N,)."""
        history, node, context = self._split(states)
        begins = self._begins[tokens]
        history = np.where(begins, self._after(history, node), history)
        node = self.lexicon.child(np.where(begins, ROOT, node), tokens)
        return self._join(history, node, self.tokens.advance(context, tokens))

    def eos(self, states: States) -> NDArray[np.float32]:
        """Return the natural-log probability (N,) that the sentence ends here."""
        return self.score(states)[:, EOS]

    def save(self, path: str | Path) -> None:
        """Write the model as a compressed NumPy archive (.npz)."""
        lengths = np.asarray([len(spelling) for spelling in self.lexicon.spellings], np.int64)
        arrays: dict[str, NDArray[Any]] = {
            "about": np.frombuffer(json.dumps(self._about()).encode(), np.uint8),
            "begins": self.begins,
            "spelling_lengths": lengths,
            "spellings": np.concatenate([np.asarray(s, np.int64) for s in self.lexicon.spellings]),
        }
        for name, model in self._parts():
            for n, level in enumerate(model.levels):
                arrays |= {f"{name}.{n}.{key}": getattr(level, key) for key in Level.__slots__}
        with Path(path).open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote; raise :class:`raysr.errors.PoolError` naming the file if it cannot."""
        try:
            with np.load(path) as arrays:
                about = json.loads(arrays["about"].tobytes())
                ends = np.cumsum(arrays["spelling_lengths"])[:-1]
                lexicon = Lexicon([tuple(s.tolist()) for s in np.split(arrays["spellings"], ends)])
                models = {
                    name: Ngram(
                        [
                            Level(**{key: arrays[f"{name}.{n}.{key}"] for key in Level.__slots__})
                            for n in range(order)
                        ],
                        about["tokens"] if name == "tokens" else len(lexicon) + FIRST_WORD,
                    )
                    for name, order in about["orders"].items()
                }
                tokens = models.pop("tokens")
                words = Mixture(list(models.values()), about["weights"])
                return cls(tokens, words, lexicon, arrays["begins"].tolist(), about["escape"])
        except (OSError, EOFError, BadZipFile, zlib.error, ValueError, LookupError, TypeError) as error:
            raise PoolError(f"{path}: not a language model of raysr ({error})") from None

    def _about(self) -> dict[str, Any]:
        return {
            "tokens": self.vocab_size,
            "escape": self.escape,
            "weights": self.words.weights,
            "orders": {name: model.order for name, model in self._parts()},
        }

    def _parts(self) -> list[tuple[str, Ngram]]:
        return [("tokens", self.tokens), *((f"words{k}", m) for k, m in enumerate(self.words.models))]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.tokens, self.words, self.lexicon, self.begins.tolist(), self.escape)

    def _spell_on(self, history: Integers, node: Integers, out: Floats) -> Floats:
        """Add to ``out`` (N, V) the lexicon's part of the tokens within words; return its part of the end (N,)."""
        ends = np.where(node == ROOT, 1 - self.escape, 0.0)
        spelling = np.flatnonzero((node != ROOT) & (node != self.lexicon.out))
        if len(spelling):
            history, node = history[spelling], node[spelling]
            masses = self._masses.of(history)
            left = (1 - self.escape) / masses.below(node)
            parent, token, child = self.lexicon.children(node)
            out[spelling[parent], token] += left[parent] * masses.take(parent).below(child)
            ends[spelling] = left * masses.of_word(node)
        return ends

    def _first_token(self, history: Integers, beginning: Floats) -> Floats:
        """Return how a new word's probability is shared out among the tokens it may begin with (N, begins)."""
        first = self.escape * beginning / beginning.sum(axis=1, keepdims=True)
        token, child = self._first_words
        column = np.searchsorted(self.begins, token)
        if len(token) == 1:
            first[:, column[0]] += 1 - self.escape
        else:
            histories = np.repeat(history, len(token))
            masses = self._masses.of(histories).below(np.tile(child, len(history)))
            first[:, column] += (1 - self.escape) * masses.reshape(len(history), -1)
        return first

    def _after(self, history: Integers, node: Integers) -> Integers:
        """Return the word histories (N,) once the words that are spelt at ``node`` (N,) have ended."""
        ended = np.flatnonzero(node != ROOT)
        after = history.copy()
        after[ended] = self.words.advance(history[ended], self.lexicon.word[node[ended]])
        return after

    def _split(self, states: States) -> tuple[Integers, Integers, Integers]:
        states, context = np.divmod(states, len(self.tokens))
        history, node = np.divmod(states, self.lexicon.out + 1)
        return history, node, context

    def _join(self, history: Integers, node: Integers, context: Integers) -> States:
        return (history * (self.lexicon.out + 1) + node) * len(self.tokens) + context


class _Rows:
    """The lexicon's words, their probabilities summed up, after N histories."""

    def __init__(self, sums: Floats, rows: Integers, lexicon: Lexicon) -> None:
        self._sums, self._rows, self._lexicon = sums, rows, lexicon

    def take(self, places: Integers) -> "_Rows":
        """Return the sums at ``places`` of the histories."""
        return _Rows(self._sums, self._rows[places], self._lexicon)

    def below(self, node: Integers) -> Floats:
        """Return the probability (N,) of all words that begin as ``node`` (N,) does."""
        return self._between(self._lexicon.first[node], self._lexicon.end[node])

    def of_word(self, node: Integers) -> Floats:
        """Return the probability (N,) of the word that ends at ``node`` (N,): 0 where none does."""
        first = self._lexicon.first[node]  # a word sorts before all that it begins
        return np.where(self._lexicon.word[node] >= FIRST_WORD, self._between(first, first + 1), 0.0)

    def _between(self, first: Integers, end: Integers) -> Floats:
        return self._sums[self._rows, end] - self._sums[self._rows, first]


class _Masses:
    """Cumulative probabilities of the lexicon's words, in its order, for the histories asked about of late.

    They are made anew when ``MASS_BYTES`` are full. Tables that were handed out are never overwritten, so that
    several threads may ask.
    """

    def __init__(self, words: Mixture, lexicon: Lexicon) -> None:
        self._words, self._lexicon = words, lexicon
        self._capacity = max(FEWEST_ROWS, MASS_BYTES // (8 * (len(lexicon) + 1)))
        self._lock = threading.Lock()
        self._forget(self._capacity)

    def of(self, histories: Integers) -> _Rows:
        """Return the sums after ``histories`` (N,)."""
        unique, inverse = np.unique(histories, return_inverse=True)
        asked = unique.tolist()
        with self._lock:
            missing = [h for h in asked if h not in self._row]
            if len(self._row) + len(missing) > len(self._sums):
                self._forget(max(self._capacity, len(asked)))
                missing = asked
            for history in missing:
                self._sums[len(self._row), 1:] = self._cumulative(history)
                self._row[history] = len(self._row)
            rows = np.asarray([self._row[h] for h in asked], np.int64)
            return _Rows(self._sums, rows[inverse.reshape(-1)], self._lexicon)

    def _cumulative(self, history: int) -> Floats:
        scores = self._words.score(np.asarray([history]))[0, self._lexicon.order]
        sums = np.cumsum(np.maximum(np.exp(scores.astype(np.float64)), SMALLEST))
        return sums / sums[-1]

    def _forget(self, rows: int) -> None:
        self._row: dict[int, int] = {}
        self._sums = np.zeros((rows, len(self._lexicon) + 1))
