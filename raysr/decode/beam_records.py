"""The records that the prefix beam search works on."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raysr.decode.backoff import Automaton, Integers, Records
from raysr.decode.bias import PhraseTables

NO_LM, NGRAM, ANSWERED = 0, 1, 2
PREFIX: np.dtype[Any] = np.dtype(
    [
        ("blank", np.float64),
        ("nonblank", np.float64),
        ("best_blank", np.float64),
        ("best_nonblank", np.float64),
        ("peak", np.float64),
        ("lm", np.float64),
        ("bias", np.float64),
        ("owed", np.float64),
        ("lm_state", np.int64),
        ("bias_state", np.int64),
        ("hash", np.uint64),
        ("parent", np.uint64),
        ("node_blank", np.int32),
        ("node_nonblank", np.int32),
        ("before", np.int32),
        ("last", np.int32),
        ("length", np.int32),
    ],
    align=True,
)
"""A kept prefix; log-probabilities are natural.

blank, nonblank: log-probability of all alignments that end in a blank, in the last token.
best_blank, best_nonblank: that of the best such alignment.
node_blank, node_nonblank: where the traceback of that alignment begins; 0 before the first token.
before: the node that ``node_nonblank`` follows.
peak: highest log-posterior of the last token within its run on ``best_nonblank``.
lm, lm_state: language-model log-probability of the prefix, and the state after it.
bias, bias_state: what boosted phrases gave it, and the state after it.
owed: what of ``bias`` was repaid of the language model's cost within the phrase that it is in.
last, length: the last token (the blank before the first one), and how many there are.
hash, parent: hash of the prefix, and of the prefix without its last token.
"""

NODE: np.dtype[Any] = np.dtype([("token", np.int32), ("parent", np.int32), ("peak", np.float32)], align=True)
"""A token on an alignment, the node before it, and its log-posterior."""


class Settings(NamedTuple):
    """What stays the same during a search.

    Attributes:
        skip_above: log-posterior of the blank above which no prefix is extended.
        lm: one of ``NO_LM``, ``NGRAM`` (look it up) and ``ANSWERED`` (the caller has the answers).
        lm_weight, length_bonus, phrase_lm_share: as of the configuration.
        ngram: the language model of ``NGRAM``.
        phrases: the boosted phrases.
    """

    skip_above: float
    lm: int
    lm_weight: float
    length_bonus: float
    phrase_lm_share: float
    ngram: Automaton
    phrases: PhraseTables


WORK: np.dtype[Any] = np.dtype(
    [
        ("total", np.float64),
        ("best", np.float64),
        ("node", np.int64),
        ("parent", np.int64),
        ("renewed", np.bool_),
    ],
    align=True,
)
"""Of a prefix: all its alignments, the best one, and where that is traced from; the place of its parent, -1 where that
is not kept; whether its last token needs a new node if it stays."""

CANDIDATE: np.dtype[Any] = np.dtype(
    [
        ("rank", np.float64),
        ("score", np.float64),
        ("lm", np.float64),
        ("bias", np.float64),
        ("owed", np.float64),
        ("lm_state", np.int64),
        ("bias_state", np.int64),
        ("source", np.int32),
        ("column", np.int32),
    ],
    align=True,
)
"""What may be kept: prefix ``source`` as it stays, or extended by the token of ``column``, which is -1 if it stays.

rank: what it is ranked by; score: all that it is worth; lm, bias, owed, lm_state, bias_state: those of the prefix that
it makes.
"""


class Scratch(NamedTuple):
    """Room for the work on a frame.

    Attributes:
        work: what there is to know of each prefix (places,).
        stayed, following: the prefixes if they stay, and those that are kept (places,).
        ranked: the best candidates (places,): the first ``beam`` are ranked without what they hold of phrases that
            may come to nothing yet, the others by all that they are worth.
        offered: a candidate, and one that has to make room for it (2,).
        beam: the prefixes kept without phrases; with some there are twice as many places.
        tokens: those that may extend a prefix (M,).
        merged: which tokens extend a prefix to one that is kept anyway (V,).
    """

    work: Records
    stayed: Records
    following: Records
    ranked: Records
    offered: Records
    beam: int
    tokens: Integers
    merged: NDArray[np.bool_]

    @classmethod
    def new(cls, beam: int, places: int, token_beam: int, vocabulary: int) -> "Scratch":
        """Return room for a search with so many places for prefixes, ``beam`` or twice as many."""
        return cls(
            work=np.zeros(places, WORK),
            stayed=np.zeros(places, PREFIX),
            following=np.zeros(places, PREFIX),
            ranked=np.zeros(places, CANDIDATE),
            offered=np.zeros(2, CANDIDATE),
            beam=beam,
            tokens=np.zeros(min(token_beam, vocabulary - 1), np.int64),
            merged=np.zeros(vocabulary, np.bool_),
        )
