"""What a Recogniser may label with: anything that turns waveforms into texts with scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from raysr.audio.fbank import FbankConfig
from raysr.config import Slot
from raysr.errors import one_line

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class TeacherOutput:
    """A teacher's answer for one utterance; scores are natural logarithms, larger is surer, None is unknown.

    Attributes:
        text: normalised transcript; empty when the teacher heard nothing.
        tokens: the teacher's own token ids, when it has any.
        score: of the whole transcript.
        normalised_score: of the transcript by its length, by which utterances are ranked.
        ctc, attention, lm: the parts of the score.
        confidences: one in [0, 1] for each token, or for each word of a teacher that works in words.
        nbest: other transcripts with their scores, best first.
        ctc_attention_agreement: 1 - word error rate between the readings of the two heads, at least 0.
        error: why there is no transcript; None when there is one.
    """

    text: str = ""
    tokens: tuple[int, ...] = ()
    score: float | None = None
    normalised_score: float | None = None
    ctc: float | None = None
    attention: float | None = None
    lm: float | None = None
    confidences: tuple[float, ...] = ()
    nbest: tuple[tuple[str, float], ...] = ()
    ctc_attention_agreement: float | None = None
    error: str | None = None


class Teacher(Protocol):
    """A recogniser that labels.

    Built as ``Teacher(config, context)`` where it is used; ``context`` is a :class:`TeacherContext`.
    """

    name: str
    version: str

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[TeacherOutput]:
        """Return one output for each waveform (N,), float32 in [-1, 1] at 16 kHz; may raise."""
        ...


@runtime_checkable
class FeatureTeacher(Teacher, Protocol):
    """A teacher that can start from cached features; ``fbank`` says how they have to be made.

    A class method ``reads(config)`` may return that fbank's configuration before a teacher is built: features
    are then made where audio is decoded, and nothing but features is sent to where models run.
    """

    fbank: FbankConfig

    def transcribe_features(self, features: Sequence[Tensor]) -> list[TeacherOutput]:
        """Return one output for each utterance's features (T, mel_bins)."""
        ...


@dataclass(frozen=True)
class TeacherContext:
    """What a teacher may know of the machine it runs on."""

    device: str = "cpu"


TEACHERS = Slot(
    "teacher",
    {
        "pool_model": "raysr.teachers.pool_model:PoolModel",
        "pocketsphinx": "raysr.teachers.pocketsphinx:PocketSphinx",
        "moonshine": "raysr.teachers.moonshine:Moonshine",
    },
)


def one_by_one(
    recognise: Callable[[Waveform], TeacherOutput], waveforms: Sequence[Waveform]
) -> list[TeacherOutput]:
    """Recognise each waveform by itself; what cannot be recognised becomes an output with an error."""
    outputs = []
    for waveform in waveforms:
        try:
            outputs.append(recognise(waveform))
        except Exception as error:
            # A library of others may raise anything; it costs this utterance and no other.
            outputs.append(TeacherOutput(error=one_line(f"{type(error).__name__}: {error}")))
    return outputs
