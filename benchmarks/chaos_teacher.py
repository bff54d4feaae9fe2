"""A teacher for `benchmarks.chaos`: it says the same of the same audio wherever it runs, and takes its time."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from raysr.config import Config as Options
from raysr.teachers.base import TeacherOutput

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")


class Steady:
    """Spells the loudness of each third of an utterance."""

    class Config(Options):
        seconds: float = 0.3

    name, version = "steady", "1"

    def __init__(self, config: Config, context: Any) -> None:
        self.seconds = config.seconds

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[TeacherOutput]:
        time.sleep(self.seconds * len(waveforms))
        return [_heard(samples) for samples in waveforms]


def _heard(samples: np.ndarray) -> TeacherOutput:
    loud = [int(1e4 * np.abs(part.astype(np.float64)).mean()) for part in np.array_split(samples, 3)]
    text = " ".join(WORDS[value % len(WORDS)] for value in loud)
    return TeacherOutput(text, normalised_score=-(sum(loud) % 97) / 97)
