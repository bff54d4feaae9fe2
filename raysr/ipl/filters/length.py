"""Filters by length: of the audio, and of the label for its audio."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
from pydantic import Field, model_validator

from raysr.config import Config as Options
from raysr.corpus.utterance import Utterance
from raysr.errors import ConfigError
from raysr.ipl.context import CycleContext
from raysr.ipl.filters.each import each
from raysr.ipl.predictions import Prediction
from raysr.teachers.base import TeacherOutput
from raysr.text.normalise import normalise

SHORTEST = 1e-3  # seconds


class CharacterRate:
    """Keeps labels whose characters a second lie in a band: fewer are deletions, more are loops or babble.

    Two-sided after NVIDIA's speech data processor.
    """

    class Config(Options):
        """Characters a second, blanks not counted.

        Attributes:
            min, max: the band.
            learn: take the band from transcribed audio instead, labelled or else dev: this share of it lies outside on
                either side. For languages and speakers that the default band was not made for.
        """

        min: float = Field(default=3.0, ge=0)
        max: float = Field(default=30.0, gt=0)
        learn: float | None = Field(default=None, gt=0, lt=0.5)

        @model_validator(mode="after")
        def _ordered(self) -> "CharacterRate.Config":
            if self.max < self.min:
                raise ValueError(f"max ({self.max:g}) lies below min ({self.min:g})")
            return self

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config, self.context = config, context

    def __call__(self, predictions: Sequence[Prediction]) -> Mapping[str, str]:
        low, high = self.band

        def reason(prediction: Prediction, label: TeacherOutput) -> str | None:
            rate = _rate(label.text, prediction.duration)
            return (
                None
                if low <= rate <= high
                else f"{rate:.1f} characters a second, outside {low:g} to {high:g}"
            )

        return each(predictions, reason)

    @cached_property
    def band(self) -> tuple[float, float]:
        """The least and the most characters a second."""
        share = self.config.learn
        if share is None:
            return self.config.min, self.config.max
        rates = [
            _rate(normalise(u.text or ""), u.duration)
            for u in transcribed(self.context, "character_rate.learn")
        ]
        low, high = np.quantile(rates, [share, 1 - share]).tolist()
        return round(low, 3), round(high, 3)


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


def transcribed(context: CycleContext, key: str) -> list[Utterance]:
    """Return labelled utterances with a text, or else those of dev; raise ConfigError naming ``key`` without any."""
    sources: Iterable[Iterable[Utterance]] = (context.labelled or (), context.dev)
    for source in sources:
        found = [u for u in source if u.text and normalise(u.text)]
        if found:
            return found
    raise ConfigError(
        f"filter: {key} needs transcribed audio: name data.labelled or data.dev, or give the values"
    )


def _rate(text: str, seconds: float) -> float:
    return len(text.replace(" ", "")) / max(seconds, SHORTEST)
