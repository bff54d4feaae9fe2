"""Contextual biasing: phrases that a request expects, worth a bonus to whatever search hears them.

A phrase that occurs in a hypothesis, from the beginning of a word to the end of one, is worth its boost for each of
its tokens. Within a phrase the bonus is paid in advance and taken back where the words turn out to be others, so that
a beam does not lose the phrase on the way (Zhao et al. 2019, "Shallow-Fusion End-to-End Contextual Biasing"); phrases
are followed by an Aho-Corasick automaton, so that one may begin inside another.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raysr.decode.backoff import Automaton, Integers, Records, walk
from raysr.decode.compiled import compiled
from raysr.decode.language_model import States
from raysr.errors import ConfigError
from raysr.text.normalise import normalise
from raysr.text.tokeniser import UNKNOWN, Tokeniser


class Phrase(NamedTuple):
    """The tokens of a phrase, the first of which begins a word, and its natural-log bonus for each of them."""

    tokens: tuple[int, ...]
    boost: float


class PhraseTables(NamedTuple):
    """The phrases of all utterances of a batch.

    Attributes:
        automaton: reads tokens; its scores are what is paid in advance and taken back.
        reward: what the phrases that end in a state are worth, should the word end here too (S,).
        advance: what was paid in advance in a state, for a phrase that is not complete (S,).
        depth: tokens of a phrase that were read in a state (S,).
        begins_word: the tokens with which a word begins (V,).
        most: no single token gains more.
    """

    automaton: Automaton
    reward: NDArray[np.float64]
    advance: NDArray[np.float64]
    depth: NDArray[np.int32]
    begins_word: NDArray[np.bool_]
    most: float

    @classmethod
    def empty(cls, begins_word: NDArray[np.bool_] | None = None, states: int = 1) -> "PhraseTables":
        """Return tables of no phrases."""
        begins_word = np.zeros(0, np.bool_) if begins_word is None else begins_word
        nothing, depth = np.zeros(states), np.zeros(states, np.int32)
        return cls(Automaton.empty(states), nothing, nothing, depth, begins_word, 0.0)


@compiled
def in_phrase(
    p: Any,
    token: int,
    repaid: float,
    states: Records,
    arcs: Records,
    reward: NDArray[np.float64],
    depth: NDArray[np.int32],
    begins_word: NDArray[np.bool_],
) -> tuple[float, int, float]:
    """Return what ``token`` gains a prefix ``p`` by phrases, the state after it, and what is owed then.

    The arrays are those of :class:`PhraseTables`, ``p`` is a record of the prefix beam, and ``repaid`` what of the
    language model's cost is repaid within a phrase: it is kept where the phrase ends with its word, and taken back
    where the words turn out to be others.
    """
    gained, state = walk(states, arcs, p.bias_state, token)
    owed = 0.0
    if begins_word[token] and reward[p.bias_state] > 0:
        gained += reward[p.bias_state]
    elif depth[state] > depth[p.bias_state]:
        owed = p.owed
    else:
        gained -= p.owed
    if depth[state] > 0:
        gained, owed = gained + repaid, owed + repaid
    return gained, state, owed


class ContextBias:
    """The phrases of a batch of utterances, asked like a language model; every utterance has a start of its own.

    What the bonus of a token sequence sums up to, ``eos`` included, is the boost of every phrase in it times the
    phrase's tokens, for each time that it occurs. The prefix beam besides repays what the language model charges
    within phrases: see ``phrase_lm_share`` of :class:`raysr.decode.prefix_beam.PrefixBeamConfig`.
    """

    def __init__(self, phrases: Sequence[Sequence[Phrase]], begins_word: Sequence[bool]) -> None:
        """Take the phrases of each utterance, and which tokens (V,) a word begins with.

        Of a phrase that is there twice the higher boost counts.
        """
        self.vocab_size = len(begins_word)
        trie = _Trie()
        self.starts = np.asarray([trie.add(own) for own in phrases], np.int64)
        self.tables = trie.tables(np.asarray(begins_word))

    def score(self, states: States, tokens: Integers | None = None) -> NDArray[np.float32]:
        """Return bonuses after ``states`` (N,): (N, V), or those of ``tokens`` (N, M)."""
        if tokens is None:
            tokens = np.broadcast_to(np.arange(self.vocab_size), (len(states), self.vocab_size))
        gained, _ = self.tables.automaton.walk(states, tokens)
        rewarded = self.tables.reward[states][:, None] * self.tables.begins_word[tokens]
        return gained + rewarded.astype(np.float32)

    def advance(self, states: States, tokens: Integers) -> States:
        """Return the states (N,) after ``tokens`` (N,) were read in ``states`` (N,)."""
        return self.tables.automaton.walk(states, tokens[:, None])[1][:, 0]

    def eos(self, states: States) -> NDArray[np.float32]:
        """Return what is gained (N,) where the sentence ends: the phrases end too, those begun are taken back."""
        return (self.tables.reward[states] - self.tables.advance[states]).astype(np.float32)

    def ends(self, states: States) -> NDArray[np.bool_]:
        """Return where phrases end (N,), should the word end there too."""
        return self.tables.reward[states] > 0


def bias_of(
    phrases: Sequence[Mapping[str, float]],
    tokeniser: Tokeniser,
) -> ContextBias | None:
    """Return the bias of phrases with their boosts, None where there are none at all.

    Args:
        phrases: those of each utterance, in any spelling that the normaliser folds into the model's.
        tokeniser: that of the model.

    Raises :class:`ConfigError` for a phrase that the tokeniser cannot write, or a boost that is not above 0.
    """
    if not any(phrases):
        return None
    begins = [tokeniser.begins_word(token) for token in range(tokeniser.vocab_size)]
    return ContextBias([[_spelt(p, b, tokeniser) for p, b in own.items()] for own in phrases], begins)


def can_write(tokeniser: Tokeniser, phrase: str) -> bool:
    """Return whether the tokeniser can write a phrase, normalised."""
    tokens = tokeniser.encode(normalise(phrase))
    return bool(tokens) and UNKNOWN not in tokens


def _spelt(text: str, boost: float, tokeniser: Tokeniser) -> Phrase:
    if not boost > 0:
        raise ConfigError(f"phrases: the boost of {text!r} is {boost:g}, it should be above 0")
    tokens = tokeniser.encode(normalise(text))
    if not tokens:
        raise ConfigError(f"phrases: there is no word in {text!r}")
    if UNKNOWN in tokens:
        unknown = " ".join(tokeniser.unknown(normalise(text)))
        raise ConfigError(f"phrases: the model never learned to write {unknown} of {text!r}")
    return Phrase(tuple(tokens), boost)


class _Trie:
    """Prefixes of phrases, the utterances' one after the other; each begins with a root."""

    def __init__(self) -> None:
        self.children: list[dict[int, int]] = []
        self.advance: list[float] = []
        self.depth: list[int] = []
        self.reward: list[float] = []
        self.shorter: list[int] = []

    def add(self, phrases: Sequence[Phrase]) -> int:
        """Add the phrases of an utterance; return its root."""
        root = self._node(0)
        for tokens, boost in phrases:
            node = root
            for depth, token in enumerate(tokens, start=1):
                if token not in self.children[node]:
                    self.children[node][token] = self._node(depth)
                node = self.children[node][token]
                self.advance[node] = max(self.advance[node], boost * depth)
            self.reward[node] = max(self.reward[node], boost * len(tokens))
        self._link(root)
        return root

    def tables(self, begins_word: NDArray[np.bool_]) -> PhraseTables:
        """Return the automaton of all, and what its states are worth."""
        if not any(self.children):
            return PhraseTables.empty(begins_word, len(self.children))
        arcs = [(node, *arc) for node, children in enumerate(self.children) for arc in children.items()]
        source, token, following = np.asarray(arcs, np.int64).T
        advance, reward, shorter = np.asarray(self.advance), np.asarray(self.reward), np.asarray(self.shorter)
        gained = advance[following] - advance[source]
        automaton = Automaton.of(source, token, gained, following, advance[shorter] - advance, shorter)
        highest = advance  # of a state and all that it backs off to
        while (highest[shorter] > highest).any():
            highest = np.maximum(highest, highest[shorter])
        begun = advance[following[begins_word[token]]].max(initial=0.0)
        most = max(gained.max() + (highest - advance).max(), (reward - advance).max() + begun)
        depth = np.asarray(self.depth, np.int32)
        return PhraseTables(automaton, reward, advance, depth, begins_word, float(most))

    def _node(self, depth: int) -> int:
        self.children.append({})
        self.depth.append(depth)
        self.advance.append(0.0)
        self.reward.append(0.0)
        self.shorter.append(len(self.shorter))
        return len(self.children) - 1

    def _link(self, root: int) -> None:
        """Find of every node the longest other one that its prefix ends in, breadth first."""
        waiting = [(node, token, root) for token, node in self.children[root].items()]
        for node, token, parent in waiting:
            shorter = self.shorter[parent]
            while token not in self.children[shorter] and shorter != root:
                shorter = self.shorter[shorter]
            target = self.children[shorter].get(token, root)
            self.shorter[node] = root if target == node else target
            self.reward[node] += self.reward[self.shorter[node]]
            waiting += [(child, t, node) for t, child in self.children[node].items()]
