"""A lexicon as a prefix tree over tokens, laid out in arrays so that many prefixes are followed at once."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from raysr.decode.hypothesis import EOS, common_prefix

Integers = NDArray[np.int64]

NO_WORD = 1  # the unknown word, as a word n-gram knows it
FIRST_WORD = EOS + 1
ROOT = 0


class Lexicon:
    """Words and the tokens that spell them. Word ids follow blank, unknown and eos, in the order given.

    The tree's nodes are prefixes, ``ROOT`` the empty one; ``OUT``, one past the last node, stands for every
    prefix of no word. Sorted by spelling, the words below a node are neighbours: ``first`` to ``end``.

    Attributes:
        spellings: tokens of each word, none empty and no two alike.
        order: word ids by spelling (W,).
        first, end: of each node, the words below it, as places in ``order`` (N,).
        word: of each node the word that is spelt so far, ``NO_WORD`` where none is (N + 1,); the last is OUT's.
    """

    def __init__(self, spellings: Sequence[tuple[int, ...]]) -> None:
        """Build the tree; raise ValueError for an empty spelling, or one of two words."""
        self.spellings = [tuple(int(token) for token in spelling) for spelling in spellings]
        ranked = sorted(range(len(self.spellings)), key=lambda k: self.spellings[k])
        in_order = [self.spellings[k] for k in ranked]
        if not all(self.spellings) or any(a == b for a, b in pairwise(in_order)):
            raise ValueError("every word needs a spelling of its own")
        self.order = np.asarray(ranked, np.int64) + FIRST_WORD
        self._build(in_order)
        self.out = len(self.first)

    def __len__(self) -> int:
        """Return the number of words."""
        return len(self.spellings)

    def child(self, nodes: Integers, tokens: Integers) -> Integers:
        """Return the nodes (N,) that ``tokens`` (N,) lead to from ``nodes`` (N,)."""
        inside = nodes != self.out
        keys = np.where(inside, nodes, 0) * self._tokens + np.minimum(tokens, self._tokens - 1)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        found = inside & (tokens < self._tokens) & (self._keys[places] == keys)
        return np.where(found, self._children[places], self.out)

    def children(self, nodes: Integers) -> tuple[Integers, Integers, Integers]:
        """Return, for every child of ``nodes`` (N,), the place of its parent in them, its token and its node."""
        begin, end = self._begin[nodes], self._begin[nodes + 1]
        parents = np.repeat(np.arange(len(nodes)), end - begin)
        edges = np.arange(len(parents)) + np.repeat(end - np.cumsum(end - begin), end - begin)
        return parents, self._keys[edges] % self._tokens, self._children[edges]

    def _build(self, spellings: Sequence[tuple[int, ...]]) -> None:
        """Add the sorted spellings one after the other: each shares a path with the one before it."""
        first, word, edges = [0], [NO_WORD], []
        path = [ROOT]
        before: tuple[int, ...] = ()
        for place, spelling in enumerate(spellings):
            shared = len(common_prefix([before, spelling]))
            del path[shared + 1 :]
            for step in spelling[shared:]:
                edges.append((path[-1], step, len(first)))
                path.append(len(first))
                first.append(place)
                word.append(NO_WORD)
            word[path[-1]] = int(self.order[place])
            before = spelling
        parent, token, node = (np.asarray(column, np.int64) for column in zip(*edges, strict=True))
        self._tokens = int(token.max()) + 1
        keys = parent * self._tokens + token
        sort = np.argsort(keys)
        self._keys, self._children = keys[sort], node[sort]
        # OUT and the one after it have no edges
        self._begin = np.searchsorted(parent[sort], np.arange(len(first) + 2))
        self.first, self.word = np.asarray(first, np.int64), np.asarray([*word, NO_WORD], np.int64)
        self.end = self.first + self._words_below(parent, node)

    def _words_below(self, parent: Integers, node: Integers) -> Integers:
        """Return how many words each node begins; a child's number is above its parent's."""
        below = (self.word[:-1] != NO_WORD).astype(np.int64)
        for child, above in zip(node[::-1].tolist(), parent[::-1].tolist(), strict=True):
            below[above] += below[child]
        return below
