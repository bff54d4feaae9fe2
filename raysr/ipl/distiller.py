"""Distillation in a cycle: what its teachers have to say beside the pseudo-labels, made ready for the trainer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from raysr.config import Spec
from raysr.corpus.manifest import Manifest, open_manifest
from raysr.corpus.utterance import Utterance
from raysr.decode.nearest import nearest
from raysr.ipl.context import CycleContext
from raysr.ipl.distributions import Forcing, distribution_teacher, distributions_folder, force
from raysr.ipl.plugins import Builder, Recogniser
from raysr.ipl.predictions import Prediction
from raysr.pool import Pool
from raysr.text.normalise import normalise
from raysr.train.distillation import TEACHER_TEXT, SequenceConfig, WordConfig

LABELLED = "labelled"
"""Folder of a cycle that the teachers' predictions of the labelled audio go to."""


@dataclass(frozen=True)
class Distiller:
    """Lets a cycle's teachers teach more than labels; a cycle without teachers learns from labels alone.

    Attributes:
        context: of the cycle.
        recogniser: labels the labelled audio with them; built when it is needed.
        resources: the CPUs and GPUs that a task takes of the cluster; None stays in this process.
    """

    context: CycleContext
    recogniser: Callable[[CycleContext], Recogniser]
    resources: tuple[float, float] | None = None

    def __call__(
        self, labelled: Manifest | None, kept: Sequence[Utterance], teachers: Sequence[Spec]
    ) -> Manifest | None:
        """Return the labelled audio, by sequence with a teacher's texts; write distributions of all texts by word."""
        config = self.context.distillation
        if not teachers or self.context.cycle < self.context.first_cycle:
            return labelled
        if config.word:
            self._force(config.word, [u for u in chain(labelled or (), kept) if u.text], teachers)
        if config.sequence and labelled is not None:
            return self._with_texts(config.sequence, labelled, teachers)
        return labelled

    def _force(self, word: WordConfig, utterances: Sequence[Utterance], teachers: Sequence[Spec]) -> None:
        c = self.context
        teacher = distribution_teacher(teachers, c.materials.tokeniser_path)
        folder = distributions_folder(c.folder / "predictions")
        forcing = Forcing(
            teacher, c.materials.tokeniser_path.absolute(), c.cache.absolute(), word.top, folder
        )
        blocks = forcing.missing(utterances)
        total, done = sum(map(len, blocks)), 0
        with c.progress.track("distributions", total) as update:
            for count in force(forcing, blocks, self.resources):
                done += count
                update(done, "")

    def _with_texts(self, sequence: SequenceConfig, labelled: Manifest, teachers: Sequence[Spec]) -> Manifest:
        self.context.progress.say("  the teachers label the labelled audio too")
        bare = open_manifest([u.with_text(None) for u in labelled])
        recogniser = self.recogniser(replace(self.context, folder=self.context.folder / LABELLED))
        said = {p.id: p for p in recogniser(bare, teachers)}
        return open_manifest([_taught(u, said.get(u.id), sequence) for u in labelled])


class CheckedBuilder:
    """A builder whose teachers are asked, before they label for hours, whether they can distil."""

    def __init__(self, builder: Builder, context: CycleContext) -> None:
        self.builder, self.context = builder, context

    def __call__(self, pool: Pool) -> Sequence[Spec]:
        teachers = self.builder(pool)
        if teachers and self.context.distillation.word and self.context.cycle >= self.context.first_cycle:
            distribution_teacher(teachers, self.context.materials.tokeniser_path)
        return teachers


def _taught(utterance: Utterance, prediction: Prediction | None, config: SequenceConfig) -> Utterance:
    texts = list(dict.fromkeys(_texts(prediction))) if prediction and prediction.label else []
    if not texts:
        return utterance
    chosen = texts[0]
    if config.text == "nearest":
        chosen = texts[
            nearest(normalise(utterance.text or ""), texts, [-float(n) for n in range(len(texts))])
        ]
    known: dict[str, Any] = {**utterance.custom, TEACHER_TEXT: chosen}
    return replace(utterance, custom=known)


def _texts(prediction: Prediction) -> Iterator[str]:
    """Yield what the teachers made of an utterance, the label first; nothing heard is no text to learn."""
    answers = [prediction.label, *prediction.answers]
    for answer in (answer for answer in answers if answer is not None):
        yield from (
            text for text in map(normalise, [answer.text, *(text for text, _ in answer.nbest)]) if text
        )
