"""What a Recogniser may label with: anything that turns waveforms into texts with scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from raysr.audio.fbank import FbankConfig
from raysr.config import Config, Slot, Spec
from raysr.errors import ConfigError, RaysrError, one_line
from raysr.model.distillation import Distributions
from raysr.text.tokeniser import Tokeniser

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
        word_confidences: one in [0, 1] for each word of ``text``, of a teacher whose tokens are smaller.
        nbest: other transcripts with their scores, best first.
        ctc_attention_agreement: 1 - word error rate between the hypotheses of the n-best list that each of the two
            heads likes best, at least 0; None where only one head has read them, or there is only one.
        text_without_lm: what CTC alone reads in the same audio, greedily; None where no language model took part.
        ended: whether the search of an attention decoder came to an end of its own, before the most tokens it may
            write; None without one.
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
    word_confidences: tuple[float, ...] = ()
    nbest: tuple[tuple[str, float], ...] = ()
    ctc_attention_agreement: float | None = None
    text_without_lm: str | None = None
    ended: bool | None = None
    error: str | None = None


class Teacher(Protocol):
    """A recogniser that labels.

    Built as ``Teacher(config, context)`` where it is used; ``context`` is a :class:`TeacherContext`. ``name`` says
    which recogniser it is, ``version`` which release or weights: they stand in every prediction.

    A class method ``patience(config)`` may return the seconds that an utterance may take it, where that can be long
    and all is well, as with a remote service: its process is then not ended before.
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


@runtime_checkable
class DistributionTeacher(FeatureTeacher, Protocol):
    """A teacher that says how likely it finds every token of a text; ``tokeniser`` says what tokens there are."""

    tokeniser: Tokeniser

    def distributions(
        self, features: Sequence[Tensor], texts: Sequence[Sequence[int]], k: int
    ) -> list[Distributions]:
        """Return its k likeliest tokens at every token of each text and at eos, (U + 1, k), given the audio."""
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
        "whisper": "raysr.teachers.whisper:Whisper",
        "transformers": "raysr.teachers.transformers:Transformers",
        "openai": "raysr.teachers.openai:OpenAi",
    },
)


def build_teacher(spec: Spec, context: TeacherContext) -> Teacher:
    """Return the teacher that ``spec`` describes, loaded.

    Raises:
        RaysrError: it cannot be loaded; one line, whatever its library raised.
    """
    try:
        teacher: Teacher = TEACHERS.build(spec, context)
    except RaysrError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ConfigError(f"teacher '{spec.kind}' cannot be loaded ({reason})") from error
    return teacher


def patience_of(spec: Spec) -> float:
    """Return the seconds that an utterance may take a teacher by its own account; 0.0 where it gives none."""
    patience = said_beforehand(spec, "patience")
    return 0.0 if patience is None else float(patience)


def said_beforehand(spec: Spec, method: str) -> Any:
    """Return what a class method of a teacher says of its configuration, without building it; None without one."""
    teacher = TEACHERS.resolve(spec.kind)
    options: type[Config] = getattr(teacher, "Config", Config)
    asked = getattr(teacher, method, None)
    return None if asked is None else asked(options.parse(spec.options))


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
