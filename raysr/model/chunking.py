"""How a stream is cut, for sessions and for files recognised as a stream would be."""

from typing import NamedTuple


class Chunking(NamedTuple):
    """What a model is asked to stream with, as :meth:`raysr.model.model.AsrModel.encode` takes it."""

    size: int
    """Encoder frames recognised at a time."""
    left: int
    """Chunks of the past that they attend to: a longer past than training saw costs words."""
    lookahead: int
    """Frames beyond the chunk that are awaited and computed with it; models without a use for them do without."""


CHUNKING = Chunking(size=8, left=8, lookahead=8)
"""Unless told otherwise."""
