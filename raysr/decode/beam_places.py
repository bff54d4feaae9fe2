"""Which candidates find a place in the prefix beam, compiled.

What a prefix holds of an expected phrase that is not complete may be taken back. It does not count for the first
``sure`` places, which are given as if that phrase were not expected; the places behind them are for what phrases
promise. Without them a hundred phrases fill the beam with their beginnings, and sound words are lost.
"""

from typing import Any

from raysr.decode.backoff import Records
from raysr.decode.compiled import compiled


@compiled
def rank(ranked: Records, count: int, sure: int, offered: Records) -> int:
    """Give the candidate ``offered[0]`` a place by its rank among the first ``sure`` of ``count``, all of them sorted.

    Who finds no place there, or loses it, gets one behind by score if a phrase may still make that good. Return how
    many there are then; ``offered[1]`` is room for work.
    """
    if count < sure:
        _insert(ranked, 0, count, offered[0])
        return count + 1
    leaving = offered[0]
    if offered[0].rank > ranked[sure - 1].rank:
        offered[1] = ranked[sure - 1]
        _insert(ranked, 0, sure - 1, offered[0])
        leaving = offered[1]
    if leaving.score <= leaving.rank:
        return count
    leaving.rank = leaving.score
    if count < len(ranked):
        _insert(ranked, sure, count, leaving)
        return count + 1
    if leaving.rank > ranked[count - 1].rank:
        _insert(ranked, sure, count - 1, leaving)
    return count


@compiled
def _insert(ranked: Records, first: int, place: int, candidate: Any) -> None:
    """Put a candidate between ``first`` and ``place``, before all of a lower rank; who was at ``place`` is gone."""
    while place > first and ranked[place - 1].rank < candidate.rank:
        ranked[place] = ranked[place - 1]
        place -= 1
    ranked[place] = candidate
