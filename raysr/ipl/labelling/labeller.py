"""Labelling a block of utterances: teachers are loaded once and make predictions of it. Knows no Ray."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from raysr.config import Spec
from raysr.corpus.features import FeatureCache
from raysr.corpus.utterance import Utterance
from raysr.errors import one_line
from raysr.ipl.labelling.attempts import Attempt, Attempts
from raysr.ipl.labelling.inputs import Inputs, Reader, needs_of
from raysr.ipl.predictions import Prediction, Predictions, TeacherHypothesis
from raysr.teachers.base import FeatureTeacher, Teacher, TeacherContext, TeacherOutput, build_teacher


@dataclass(frozen=True)
class Labelling:
    """What labelling a cycle takes, wherever a worker does it.

    Attributes:
        teachers: what to build, best first.
        cycle: that the predictions are for.
        out: folder that the predictions are written to.
        cache: features that may be there already; what is not is made from the audio.
        longest: utterances of more seconds are refused.
        retries: how often what fails is tried again: a teacher's exception, an error of the disk, a death.
        timeout: seconds that one utterance may take to be read, and to be transcribed by one teacher. None for
            a process that is not ours to end.
    """

    teachers: Sequence[Spec]
    cycle: int
    out: Path
    cache: FeatureCache
    longest: float
    retries: int = 2
    timeout: float | None = None

    def attempts(self, step: str) -> Attempts:
        """Return the attempts at a step's blocks."""
        return Attempts(self.out.parent / "attempts" / step, self.retries, self.timeout)


@dataclass(frozen=True)
class BlockReport:
    """What became of a block.

    Attributes:
        utterances: how many have a row now.
        seconds: of audio in them.
        failures: kind (``audio``, ``teacher``, ``timeout``, ``death``) → how many have no label.
    """

    utterances: int = 0
    seconds: float = 0.0
    failures: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Sequence[Prediction], kinds: Mapping[str, str]) -> "BlockReport":
        """Report rows; ``kinds`` says of what kind a failure is that is not a teacher's error."""
        failures = Counter(kinds.get(row.id, "teacher") for row in rows if row.failure is not None)
        return cls(len(rows), sum(row.duration for row in rows), failures)

    def __add__(self, other: "BlockReport") -> "BlockReport":
        failures = Counter(self.failures) + Counter(other.failures)
        return BlockReport(self.utterances + other.utterances, self.seconds + other.seconds, failures)


class Labeller:
    """The teachers of a cycle, ready to label; ``device``: where models run, None takes the GPU when there is one."""

    def __init__(self, labelling: Labelling, device: str | None = None) -> None:
        context = TeacherContext(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if context.device == "cpu":
            torch.set_num_threads(1)
        self.labelling = labelling
        self.teachers: list[Teacher] = [build_teacher(spec, context) for spec in labelling.teachers]
        self.needs = needs_of(self.teachers)
        self.read = Reader(self.needs, labelling.cache, labelling.longest, labelling.retries)
        self.attempts = labelling.attempts("label")
        self.predictions = Predictions(labelling.out)
        self.predictions.record(self.teachers, labelling.teachers)

    def __call__(self, utterances: Sequence[Utterance]) -> BlockReport:
        """Read and label a block and write its predictions; whatever goes wrong with one utterance is in its row."""
        with self.attempts.at([u.id for u in utterances]) as attempt:
            return self._label(self.read(utterances, attempt), attempt)

    def label(self, inputs: Sequence[Inputs]) -> BlockReport:
        """Label a block that was read elsewhere."""
        with self.attempts.at([one.utterance.id for one in inputs]) as attempt:
            return self._label(inputs, attempt)

    def _label(self, inputs: Sequence[Inputs], attempt: Attempt) -> BlockReport:
        parts = [[one] for one in inputs] if attempt.one_by_one else [inputs]
        return sum((self._part(part, attempt) for part in parts), BlockReport())

    def _part(self, inputs: Sequence[Inputs], attempt: Attempt) -> BlockReport:
        """Label what is written at once; what an attempt that died has written stays."""
        kinds = {one.utterance.id: one.kind for one in inputs if one.error is not None}
        rows = self.predictions.block([one.utterance.id for one in inputs])
        if rows is None:
            rows = self._rows(inputs, attempt, kinds)
            self.predictions.write(rows)
        return BlockReport.of(rows, kinds)

    def _rows(self, inputs: Sequence[Inputs], attempt: Attempt, kinds: dict[str, str]) -> list[Prediction]:
        readable = {one.utterance.id: one for one in inputs if one.error is None}
        said = [self._hypotheses(teacher, readable, attempt, kinds) for teacher in self.teachers]
        return [
            Prediction(
                id=one.utterance.id,
                cycle=self.labelling.cycle,
                duration=one.utterance.duration,
                hypotheses=() if one.error else tuple(hypotheses[one.utterance.id] for hypotheses in said),
                error=one.error,
            )
            for one in inputs
        ]

    def _hypotheses(
        self, teacher: Teacher, readable: Mapping[str, Inputs], attempt: Attempt, kinds: dict[str, str]
    ) -> dict[str, TeacherHypothesis]:
        """Return by id what a teacher says, or why it cannot."""
        doing = f"{teacher.name} transcribing it"
        lost = {name: why for name, why in attempt.given_up(doing).items() if name in readable}
        kinds.update((name, why.kind) for name, why in lost.items())
        asked = {name: one for name, one in readable.items() if name not in lost}
        outputs = {name: TeacherOutput(error=why.reason) for name, why in lost.items()}
        if asked:
            attempt.step(list(asked), doing)
            transcribe, given = _feed(teacher, list(asked.values()))
            found = _transcribe(transcribe, given, self.labelling.retries, attempt)
            outputs |= dict(zip(asked, found, strict=True))
        return {
            name: TeacherHypothesis(teacher.name, teacher.version, output) for name, output in outputs.items()
        }


def _feed(teacher: Teacher, inputs: Sequence[Inputs]) -> tuple[Callable[[list], list[TeacherOutput]], list]:
    """Return the method to call and what to call it with."""
    if isinstance(teacher, FeatureTeacher):
        return teacher.transcribe_features, [one.features_of(teacher.fbank) for one in inputs]
    return teacher.transcribe, [one.waveform for one in inputs]


def _transcribe(
    transcribe: Callable[[list], list[TeacherOutput]], inputs: list, retries: int, attempt: Attempt
) -> list[TeacherOutput]:
    """Transcribe all at once; when that fails in halves, so that only the culprit is lost, after its retries."""
    try:
        outputs = transcribe(inputs)
        if len(outputs) == len(inputs):
            return outputs
        reason = f"the teacher answered {len(outputs)} times for {len(inputs)} utterances"
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        if _is_of_broken_device(error):
            attempt.lost(reason)
    if len(inputs) > 1:
        middle = len(inputs) // 2
        halves = (inputs[:middle], inputs[middle:])
        return [output for half in halves for output in _transcribe(transcribe, half, retries, attempt)]
    return _transcribe(transcribe, inputs, retries - 1, attempt) if retries else [TeacherOutput(error=reason)]


def _is_of_broken_device(error: Exception) -> bool:
    """Say whether nothing will work in this process from now on, as after an illegal access on a GPU."""
    return isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)
