"""A back-off automaton: what an n-gram model and a list of boosted phrases have in common.

A state is a context, its arcs are the tokens known to follow it. Another token is looked for in the next shorter
context, at the price of the state's back-off; the shortest one, the root, reads unknown tokens for nothing.
"""

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from raysr.decode.compiled import compiled

Integers = NDArray[np.int64]
Records = NDArray[np.void]

STATE: np.dtype[Any] = np.dtype(
    [("begin", np.int64), ("backoff", np.float32), ("shorter", np.int32)], align=True
)
"""The arcs of a state begin at ``begin`` and end where the next one's begin; a root's ``shorter`` is itself."""
ARC: np.dtype[Any] = np.dtype(
    [("token", np.int32), ("following", np.int32), ("score", np.float32)], align=True
)


class Automaton(NamedTuple):
    """States (S + 1,), the last one a sentinel, and their arcs (A,), sorted by state and token."""

    states: Records
    arcs: Records

    @classmethod
    def of(
        cls,
        source: Integers,
        token: NDArray[Any],
        score: NDArray[Any],
        following: NDArray[Any],
        backoff: NDArray[Any],
        shorter: NDArray[Any],
    ) -> Self:
        """Put an automaton together of its arcs (A,) in any order, and of its states (S,)."""
        order = np.lexsort((token, source))
        states, arcs = np.zeros(len(shorter) + 1, STATE), np.zeros(len(order), ARC)
        states["begin"] = np.searchsorted(source[order], np.arange(len(states)))
        states["backoff"][:-1], states["shorter"][:-1] = backoff, shorter
        arcs["token"], arcs["score"], arcs["following"] = token[order], score[order], following[order]
        return cls(states, arcs)

    @property
    def size(self) -> int:
        """The number of states."""
        return len(self.states) - 1

    @classmethod
    def empty(cls, size: int = 1) -> Self:
        """Return an automaton of roots without arcs, which scores every token 0."""
        nothing = np.zeros(0, np.int64)
        return cls.of(nothing, nothing, nothing, nothing, np.zeros(size), np.arange(size))

    def walk(self, states: Integers, tokens: Integers) -> tuple[NDArray[np.float32], Integers]:
        """Return the scores of ``tokens`` (N, M) in ``states`` (N,), and the states after them, both (N, M)."""
        return _walk_all(self.states, self.arcs, _plain(states), _plain(tokens))

    def rows(self, states: Integers, vocabulary: int) -> NDArray[np.float32]:
        """Return the scores of all tokens in ``states`` (N,), (N, V)."""
        return _rows(self.states, self.arcs, _plain(states), vocabulary)


@compiled
def walk(states: Records, arcs: Records, state: int, token: int) -> tuple[float, int]:
    """Return the score of ``token`` in ``state``, and the state after it."""
    score = 0.0
    while True:
        low, end = states[state].begin, states[state + 1].begin
        high = end
        while low < high:
            middle = (low + high) >> 1
            if arcs[middle].token < token:
                low = middle + 1
            else:
                high = middle
        if low < end and arcs[low].token == token:
            return score + arcs[low].score, int(arcs[low].following)
        score += states[state].backoff
        shorter = int(states[state].shorter)
        if shorter == state:
            return score, shorter
        state = shorter


@compiled
def _walk_all(
    states: Records, arcs: Records, begun: Integers, tokens: Integers
) -> tuple[NDArray[np.float32], Integers]:
    scores, following = np.empty(tokens.shape, np.float32), np.empty(tokens.shape, np.int64)
    for n in range(tokens.shape[0]):
        for m in range(tokens.shape[1]):
            scores[n, m], following[n, m] = walk(states, arcs, begun[n], tokens[n, m])
    return scores, following


@compiled
def _rows(states: Records, arcs: Records, asked: Integers, vocabulary: int) -> NDArray[np.float32]:
    scores = np.zeros((len(asked), vocabulary), np.float32)
    for n in range(len(asked)):
        contexts = [asked[n]]
        while states[contexts[-1]].shorter != contexts[-1]:
            contexts.append(int(states[contexts[-1]].shorter))
        for context in contexts[::-1]:
            scores[n] += states[context].backoff
            for arc in arcs[states[context].begin : states[context + 1].begin]:
                scores[n, arc.token] = arc.score
    return scores


def _plain(integers: Integers) -> Integers:
    """Return an array of the one layout that the functions are compiled for."""
    return np.ascontiguousarray(integers, np.int64)
