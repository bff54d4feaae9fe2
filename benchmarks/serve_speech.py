"""What live sessions play: test utterances of the demo corpus, one after the other, 70% speech, cut into turns."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

import numpy as np

from benchmarks.joined import HISS, RATE
from raysr.corpus.demo import demo_corpus
from raysr.corpus.load import load_waveform
from raysr.corpus.utterance import Utterance
from raysr.text.normalise import normalise

SPEECH = 0.7
SHORTEST_GAP = 0.3
PACKET = RATE // 10


@dataclass(frozen=True)
class Turn:
    """An utterance in a recording.

    Attributes:
        text: what is said.
        end: where its speech ends, in seconds.
        ending: whether the client asks for its final there, or leaves it to the pause.
    """

    text: str
    end: float
    ending: Literal["finalize", "pause"]


@dataclass(frozen=True)
class Recording:
    """Samples (N,) int16 at 16 kHz and the turns in them."""

    samples: np.ndarray
    turns: Sequence[Turn]

    @property
    def text(self) -> str:
        """All that is said."""
        return " ".join(turn.text for turn in self.turns)

    @cached_property
    def packets(self) -> list[tuple[bytes, bool]]:
        """A tenth of a second each, and whether the client asks for a final after it."""
        asked = {-(-round(turn.end * RATE) // PACKET) for turn in self.turns if turn.ending == "finalize"}
        starts = range(0, len(self.samples), PACKET)
        return [
            (self.samples[first : first + PACKET].astype("<i2").tobytes(), number in asked)
            for number, first in enumerate(starts, 1)
        ]


@cache
def recording(number: int, seconds: float) -> Recording:
    """Return a recording of about ``seconds``; gaps are such that 70% of it are utterances."""
    draws = np.random.default_rng(number)
    spoken: list[Utterance] = list(demo_corpus().tests["clean"])
    pieces: list[np.ndarray] = []
    turns: list[Turn] = []
    total = 0
    for count, place in enumerate(draws.permutation(len(spoken))):
        utterance = spoken[place]
        speech = load_waveform(utterance)
        turns.append(
            Turn(
                normalise(utterance.text or ""),
                (total + len(speech)) / RATE,
                "finalize" if count % 2 else "pause",
            )
        )
        mean = len(speech) / RATE * (1 - SPEECH) / SPEECH
        gap = draws.normal(scale=HISS, size=round(RATE * max(SHORTEST_GAP, mean * draws.uniform(0.5, 1.5))))
        pieces += [speech, gap]
        total += len(speech) + len(gap)
        if total >= seconds * RATE:
            break
    samples = np.clip(np.rint(32768 * np.concatenate(pieces)), -32768, 32767).astype(np.int16)
    return Recording(samples, tuple(turns))
