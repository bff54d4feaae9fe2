"""How much a pseudo-label counts in the loss, beside a labelled utterance that counts 1."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from pydantic import Field

from raysr.config import Config as Options
from raysr.config import Slot, Spec
from raysr.corpus.utterance import Utterance
from raysr.ipl.context import CycleContext

LABEL_SCORE = "label_score"
"""The key of a kept utterance's ``custom`` that holds its decision's length-normalised score."""


class Weigher(Protocol):
    """Built as ``Weigher(config, context)`` in every cycle; weighs the kept utterances."""

    def __call__(self, kept: Sequence[Utterance]) -> Sequence[float]:
        """Return a weight for each; one of weight 0 is left out."""
        ...


class Constant:
    """The same for all."""

    class Config(Options):
        value: float = Field(default=1.0, gt=0)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.value = config.value

    def __call__(self, kept: Sequence[Utterance]) -> Sequence[float]:
        return [self.value] * len(kept)


class Score:
    """More for labels that their teacher is surer of, from ``floor`` to 1.

    What has no score, since its teacher gives none, weighs ``floor``.
    """

    class Config(Options):
        """``by``: a score's place among all those kept, whatever its scale, or exp(score), a mean probability."""

        by: Literal["rank", "probability"] = "rank"
        floor: float = Field(default=0.2, gt=0, le=1)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config = config

    def __call__(self, kept: Sequence[Utterance]) -> Sequence[float]:
        scores = [_score(utterance) for utterance in kept]
        sure = self._ranks(scores) if self.config.by == "rank" else [math.exp(min(0.0, s)) for s in scores]
        return [self.config.floor + (1 - self.config.floor) * share for share in sure]

    @staticmethod
    def _ranks(scores: Sequence[float]) -> list[float]:
        """Return the share of the scored labels that each is at least as sure as."""
        known = sorted(score for score in scores if score > -math.inf)
        return [bisect_right(known, score) / max(1, len(known)) for score in scores]


def _score(utterance: Utterance) -> float:
    value = utterance.custom.get(LABEL_SCORE)
    return float(value) if isinstance(value, int | float) else -math.inf


WEIGHERS = Slot(
    "batcher.weight",
    {"constant": "raysr.ipl.weights:Constant", "score": "raysr.ipl.weights:Score"},
)


def check_weight(value: Any) -> Any:
    """Return a weigher's description with its defaults filled in; a number is a constant."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = {"kind": "constant", "value": value}
    return WEIGHERS.check(Spec.model_validate(value))
