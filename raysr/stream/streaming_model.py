"""A recogniser as live sessions use it: under a version, with an encoder whose batch they share."""

from raysr.model.chunking import CHUNKING, Chunking
from raysr.model.streaming import Streamer
from raysr.pool import Recogniser


class StreamingModel:
    """What sessions hear with.

    Args:
        recogniser: a loaded pool entry.
        version: that events of its segments carry.
        chunking: encoder frames recognised at a time, and what they see beside themselves.
        slots: sessions that hear with it at the same time, at most; each has caches of fixed size.
    """

    def __init__(
        self, recogniser: Recogniser, version: str = "", chunking: Chunking = CHUNKING, slots: int = 1
    ) -> None:
        self.recogniser, self.version = recogniser, version
        self.streamer = Streamer(recogniser.model, *chunking, slots=slots, step=recogniser.step)
