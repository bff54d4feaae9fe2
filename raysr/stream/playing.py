"""An utterance played to a session as a live stream would bring it: what is heard, and how late it is."""

import time
from dataclasses import dataclass

import numpy as np

from raysr.audio.files import SAMPLE_RATE
from raysr.decode.words import Word
from raysr.stream.events import Event, Final, transcript
from raysr.stream.latency import Late, Latency
from raysr.stream.session import Session
from raysr.stream.stability import Stability
from raysr.stream.streaming_model import StreamingModel

PIECE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Played:
    """What a session made of an utterance.

    Attributes:
        text: of all finals.
        words: with times in seconds of the utterance.
        late: how late text was by the audio's own clock, as if computing took no time: what chunks, lookahead, the
            search and endpoints cost on any machine. It counts in steps of ``PIECE_SECONDS``.
        taken_back: words of partials that were changed later.
        seconds: that computing took.
    """

    text: str
    words: tuple[Word, ...]
    late: tuple[Late, ...]
    taken_back: int
    seconds: float


def play(model: StreamingModel, samples: np.ndarray) -> Played:
    """Play samples (N,) at 16 kHz, a piece at a time, and end the stream after them."""
    started = time.perf_counter()
    session, latency, stability = Session(model), Latency(), Stability()
    events: list[Event] = []
    late: list[Late] = []

    def told(found: list[Event], now: float) -> None:
        events.extend(found)
        late.extend(latency.seen(found, now))
        for event in found:
            stability.told(event)

    step = round(PIECE_SECONDS * SAMPLE_RATE)
    for first in range(0, len(samples), step):
        piece = samples[first : first + step]
        now = (first + len(piece)) / SAMPLE_RATE
        latency.arrived(now, now)
        told(session.push(piece), now)
    end = len(samples) / SAMPLE_RATE
    latency.asked(end)
    told(session.finish(), end)
    session.leave()
    words = tuple(word for event in events if isinstance(event, Final) for word in event.words)
    seconds = time.perf_counter() - started
    return Played(transcript(events), words, tuple(late), stability.taken_back, seconds)
