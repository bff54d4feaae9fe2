"""Labelling a block of utterances: teachers are loaded once and make predictions of it. Knows no Ray."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from raysr.audio.fbank import Fbank
from raysr.config import Spec
from raysr.corpus.features import FeatureCache
from raysr.corpus.load import load_waveform
from raysr.corpus.utterance import Utterance
from raysr.errors import AudioError, RaysrError
from raysr.ipl.predictions import Prediction, Predictions, TeacherHypothesis
from raysr.teachers.base import (
    FeatureTeacher,
    Teacher,
    TeacherContext,
    TeacherOutput,
    Waveform,
    build_teacher,
)

T = TypeVar("T")


class Labeller:
    """The teachers of a cycle, ready to label.

    Args:
        teachers: what to build, best first.
        cycle: that the predictions are for.
        out: folder that the predictions are written to.
        cache: features that may be there already; what is not is made from the audio.
        longest: utterances of more seconds are refused.
        device: where models run; None takes the GPU when there is one.
    """

    def __init__(
        self,
        teachers: Sequence[Spec],
        cycle: int,
        out: Path,
        cache: FeatureCache,
        longest: float,
        device: str | None = None,
    ) -> None:
        context = TeacherContext(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if context.device == "cpu":
            torch.set_num_threads(1)
        self.teachers: list[Teacher] = [build_teacher(spec, context) for spec in teachers]
        self.cycle, self.cache, self.longest = cycle, cache, longest
        self.predictions = Predictions(out)
        self.predictions.record(self.teachers, teachers)

    def __call__(self, utterances: Sequence[Utterance]) -> list[Prediction]:
        """Label a block and write its predictions; whatever goes wrong with one utterance is in its row."""
        audio = [_Audio(utterance, self.cache, self.longest) for utterance in utterances]
        said = [self._hypotheses(teacher, audio) for teacher in self.teachers]
        rows = [
            Prediction(
                id=a.utterance.id,
                cycle=self.cycle,
                duration=a.utterance.duration,
                hypotheses=() if a.error else tuple(hypotheses[n] for hypotheses in said),
                error=a.error,
            )
            for n, a in enumerate(audio)
        ]
        self.predictions.write(rows)
        return rows

    def _hypotheses(self, teacher: Teacher, audio: Sequence["_Audio"]) -> dict[int, TeacherHypothesis]:
        transcribe, inputs = _feed(teacher, audio)
        outputs = _guarded(transcribe, list(inputs.values()))
        return {
            n: TeacherHypothesis(teacher.name, teacher.version, output)
            for n, output in zip(inputs, outputs, strict=True)
        }


class _Audio:
    """An utterance's samples and features, read when a teacher asks; ``error`` says why they could not be."""

    def __init__(self, utterance: Utterance, cache: FeatureCache, longest: float) -> None:
        self.utterance = utterance
        self.error: str | None = None
        self._cache, self._longest = cache, longest
        self._waveform: Waveform | None = None

    def waveform(self) -> Waveform | None:
        if self._waveform is None and self.error is None:
            self._waveform = self._read(lambda: load_waveform(self.utterance))
        return self._waveform

    def features(self, fbank: Fbank) -> Tensor | None:
        cached = self._read(self._cached) if fbank.config == self._cache.config and not self.error else None
        if cached is not None:
            return cached
        waveform = self.waveform()
        return None if waveform is None else fbank(torch.from_numpy(waveform))

    def _cached(self) -> Tensor | None:
        return self._cache.get(self.utterance) if self.utterance in self._cache else None

    def _read(self, read: Callable[[], T]) -> T | None:
        try:
            if self.utterance.duration > self._longest:
                raise AudioError(
                    f"{self.utterance.duration:.0f} s long: cut it (recogniser.longest is {self._longest:g} s)"
                )
            return read()
        except (RaysrError, OSError) as error:
            self.error = str(error)
        except Exception as error:
            # Decoders may raise anything on damaged bytes; it costs this utterance and no other.
            self.error = f"{type(error).__name__}: {error}"
        return None


def _feed(
    teacher: Teacher, audio: Sequence[_Audio]
) -> tuple[Callable[[list], list[TeacherOutput]], dict[int, object]]:
    """Return the method to call and what could be read for it, by position."""
    if isinstance(teacher, FeatureTeacher):
        fbank = Fbank(teacher.fbank)
        read = {n: a.features(fbank) for n, a in enumerate(audio)}
        return teacher.transcribe_features, {n: f for n, f in read.items() if f is not None}
    return teacher.transcribe, {n: w for n, a in enumerate(audio) if (w := a.waveform()) is not None}


def _guarded(transcribe: Callable[[list], list[TeacherOutput]], inputs: list) -> list[TeacherOutput]:
    """Transcribe all at once; when that fails one by one, so that only the culprit is lost."""
    try:
        outputs = transcribe(inputs)
        if len(outputs) == len(inputs):
            return outputs
        reason = f"the teacher answered {len(outputs)} times for {len(inputs)} utterances"
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    if len(inputs) <= 1:
        return [TeacherOutput(error=reason) for _ in inputs]
    return [output for one in inputs for output in _guarded(transcribe, [one])]
