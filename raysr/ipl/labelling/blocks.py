"""Blocks: what is labelled and written at once. Of like length, and read where they lie together."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

from raysr.corpus.utterance import Utterance


def blocks(
    utterances: Iterable[Utterance], count: int, seconds: float, window: int
) -> Iterator[list[Utterance]]:
    """Yield every utterance once, in blocks that a padded batch wastes little on.

    Sorting all by length would read every shard from everywhere; so ``window`` blocks' worth of neighbours are
    sorted at a time, and neighbours that are cut from one recording stay together, in order, since most formats
    are decoded from their beginning.

    Args:
        utterances: in the order in which they lie, as of a manifest; only a window of them is held.
        count: the most in a block.
        seconds: the most in a block once all are padded to its longest; an utterance that is longer is alone.
        window: how many blocks' worth are sorted together.
    """
    source = iter(utterances)
    while near := list(itertools.islice(source, count * window)):
        for run in _runs(near):
            yield from _cut(run, count, seconds)


def _runs(near: Sequence[Utterance]) -> Iterator[list[Utterance]]:
    """Yield the pieces of each recording in their order, then all that is a recording of its own, by length."""
    alone: list[Utterance] = []
    for _, group in itertools.groupby(near, key=lambda u: (u.audio, u.row)):
        pieces = list(group)
        if len(pieces) > 1:
            yield sorted(pieces, key=lambda u: u.start)
        else:
            alone += pieces
    yield sorted(alone, key=lambda u: u.duration)


def _cut(run: Iterable[Utterance], count: int, seconds: float) -> Iterator[list[Utterance]]:
    block: list[Utterance] = []
    longest = 0.0
    for utterance in run:
        longest = max(longest, utterance.duration)
        if block and (len(block) == count or (len(block) + 1) * longest > seconds):
            yield block
            block, longest = [], utterance.duration
        block.append(utterance)
    if block:
        yield block
