"""Filters: which pseudo-labels to believe. Pure over predictions: they can run again without labelling.

Sources: loops and length-normalised score after Kahn et al. 2019 (arXiv:1909.09116); agreement after WeNet's
noisy student recipe; the two-sided character rate after NeMo's speech data processor.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import jiwer
from pydantic import Field, field_validator

from raysr.config import Config as Options
from raysr.ipl.context import CycleContext
from raysr.ipl.predictions import Prediction
from raysr.teachers.base import TeacherOutput


class Score:
    """Keeps the best share of the utterances by the length-normalised score of their label."""

    class Config(Options):
        """``keep``: the share kept, in (0, 1]; a list has one a cycle that labels, the last staying."""

        keep: float | list[float] = Field(default_factory=lambda: [0.5, 0.8, 0.9])

        @field_validator("keep")
        @classmethod
        def _shares(cls, keep: float | list[float]) -> float | list[float]:
            shares = keep if isinstance(keep, list) else [keep]
            if not shares or not all(0 < share <= 1 for share in shares):
                raise ValueError("a share to keep lies above 0 and is at most 1")
            return keep

    def __init__(self, config: Config, context: CycleContext) -> None:
        shares = config.keep if isinstance(config.keep, list) else [config.keep]
        self.keep = shares[min(context.labelling_round, len(shares) - 1)]

    def __call__(self, predictions: Sequence[Prediction]) -> Mapping[str, str]:
        scored = [
            (p.label.normalised_score, p.id)
            for p in predictions
            if p.label and p.label.normalised_score is not None
        ]
        scored.sort(key=lambda pair: (-pair[0], pair[1]))
        kept = round(self.keep * len(scored))
        return {name: f"score {score:.3f} below the best {self.keep:.0%}" for score, name in scored[kept:]}


class Agreement:
    """Keeps what two readings agree on: the label and another teacher's, or the CTC and attention heads' of one."""

    class Config(Options):
        """``max_wer``: largest word error rate between the two readings, in percent of the label's words."""

        between: Literal["teachers", "heads"] = "teachers"
        max_wer: float = Field(default=20.0, ge=0)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config = config

    def __call__(self, predictions: Sequence[Prediction]) -> Mapping[str, str]:
        reasons = {}
        for prediction in predictions:
            wer = (
                self._between_heads(prediction)
                if self.config.between == "heads"
                else _between_teachers(prediction)
            )
            if wer is None:
                reasons[prediction.id] = f"no second reading to agree with ({self.config.between})"
            elif wer > self.config.max_wer:
                reasons[prediction.id] = f"{self.config.between} disagree: {wer:.0f}% of the words"
        return reasons

    @staticmethod
    def _between_heads(prediction: Prediction) -> float | None:
        agreement = prediction.label.ctc_attention_agreement if prediction.label else None
        return None if agreement is None else 100 * (1 - agreement)


class CharacterRate:
    """Keeps labels whose characters a second lie in a band: fewer are deletions, more are loops or babble."""

    class Config(Options):
        """Characters a second, blanks not counted."""

        min: float = Field(default=3.0, ge=0)
        max: float = Field(default=30.0, gt=0)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config = config

    def __call__(self, predictions: Sequence[Prediction]) -> Mapping[str, str]:
        def reason(prediction: Prediction, label: TeacherOutput) -> str | None:
            rate = len(label.text.replace(" ", "")) / max(prediction.duration, 1e-3)
            if self.config.min <= rate <= self.config.max:
                return None
            return f"{rate:.1f} characters a second, outside {self.config.min:g} to {self.config.max:g}"

        return _each(predictions, reason)


class Empty:
    """Drops empty labels."""

    def __init__(self, config: Options, context: CycleContext) -> None:
        pass

    def __call__(self, predictions: Sequence[Prediction]) -> Mapping[str, str]:
        return _each(predictions, lambda _, label: None if label.text.strip() else "empty label")


class Loop:
    """Drops labels in which some run of ``n`` words comes more than ``times`` times: decoders loop."""

    class Config(Options):
        n: int = Field(default=2, ge=1)
        times: int = Field(default=3, ge=1)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config = config

    def __call__(self, predictions: Sequence[Prediction]) -> Mapping[str, str]:
        def reason(_: Prediction, label: TeacherOutput) -> str | None:
            words = label.text.split()
            runs = Counter(zip(*(words[k:] for k in range(self.config.n)), strict=False))
            run, count = max(runs.items(), key=lambda item: item[1], default=((), 0))
            return f"'{' '.join(run)}' comes {count} times" if count > self.config.times else None

        return _each(predictions, reason)


class Duration:
    """Keeps utterances between two lengths, in seconds."""

    class Config(Options):
        min: float = Field(default=0.3, ge=0)
        max: float = Field(default=30.0, gt=0)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config = config

    def __call__(self, predictions: Sequence[Prediction]) -> Mapping[str, str]:
        low, high = self.config.min, self.config.max
        return {
            p.id: f"{p.duration:.2f} s long, outside {low:g} to {high:g}"
            for p in predictions
            if not low <= p.duration <= high
        }


def _each(
    predictions: Sequence[Prediction], reason: Callable[[Prediction, TeacherOutput], str | None]
) -> dict[str, str]:
    """Return the reasons of the predictions whose label ``reason`` objects to."""
    found = {p.id: reason(p, p.label) for p in predictions if p.label is not None}
    return {name: why for name, why in found.items() if why is not None}


def _between_teachers(prediction: Prediction) -> float | None:
    """Return the word error rate, in percent, of the second nearest teacher's text against the label.

    The nearest is the teacher that the label is of, or that comes closest to what all were made into by vote.
    """
    label = prediction.label
    answers = prediction.answers
    if label is None or len(answers) < 2:
        return None
    rates = [_wer(label.text, answer.text) for answer in answers]
    return sorted(rates)[1]


def _wer(reference: str, hypothesis: str) -> float:
    return 100 * (jiwer.wer(reference, hypothesis) if reference else float(bool(hypothesis)))
