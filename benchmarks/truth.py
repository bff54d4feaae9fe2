"""The oracle's plug-in: a Recogniser that hands over what was really said."""

from collections.abc import Sequence
from itertools import chain

from raysr.config import Config, Spec
from raysr.corpus.demo import demo_corpus
from raysr.corpus.manifest import Manifest
from raysr.ipl.canary import MARK
from raysr.ipl.context import CycleContext
from raysr.ipl.predictions import Prediction, Predictions, TeacherHypothesis
from raysr.teachers.base import TeacherOutput


class Truth:
    """Labels the demo corpus's unlabelled part with its hidden truth, and the canary; the teachers are not asked."""

    Config = Config

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.context = context

    def __call__(self, selected: Manifest, teachers: Sequence[Spec]) -> Predictions:
        corpus = demo_corpus()
        dev = chain.from_iterable(corpus.dev.values())
        truth = corpus.truth | {MARK + u.id: u.text or "" for u in dev}
        predictions = Predictions(self.context.folder / "predictions")
        rows = [
            Prediction(
                u.id,
                self.context.cycle,
                u.duration,
                (TeacherHypothesis("truth", "1", TeacherOutput(text=truth[u.id], normalised_score=0.0)),),
            )
            for u in selected
        ]
        if rows:
            predictions.write(rows)
        return predictions
