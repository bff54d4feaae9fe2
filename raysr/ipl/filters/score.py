"""Filters by how sure the teacher was: its length-normalised score, its confidence in tokens or words."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from raysr.config import Config as Options
from raysr.ipl.context import CycleContext
from raysr.ipl.filters.each import each
from raysr.ipl.filters.quantities import QUANTITIES, score
from raysr.ipl.predictions import Prediction
from raysr.ipl.strata import EDGES, By, Edges, duration_stratum, grouped, stratum
from raysr.teachers.base import TeacherOutput


class Score:
    """Keeps the best share of the utterances by the length-normalised score of their label, or those above a threshold.

    A label is ranked among those of the same teacher and version: scores of others are on another scale. Labels whose
    teacher gives no score stay.
    """

    class Config(Options):
        """How many stay.

        Attributes:
            keep: the share kept of each group that is ranked, in (0, 1], and at least one label; a list has one a
                cycle that labels, the last staying.
            threshold: the least score instead, a natural logarithm a token: right for one teacher and decoding.
            by: keep the best share of each ``duration``, ``speaker``, ``language`` or ``tag:NAME``, since scores of
                short or noisy utterances are lower and a common quantile would eat one kind of audio.
            edges: of the strata of durations, in seconds.
        """

        keep: float | list[float] | None = None
        threshold: float | None = None
        by: By | None = None
        edges: Edges = Field(default_factory=lambda: list(EDGES))

        @model_validator(mode="before")
        @classmethod
        def _default(cls, given: Any) -> Any:
            if given.get("keep") is None and given.get("threshold") is None:
                return {**given, "keep": [0.5, 0.8, 0.9]}
            return given

        @field_validator("keep")
        @classmethod
        def _shares(cls, keep: float | list[float] | None) -> float | list[float] | None:
            shares = [] if keep is None else keep if isinstance(keep, list) else [keep]
            if keep == [] or not all(0 < share <= 1 for share in shares):
                raise ValueError("a share to keep lies above 0 and is at most 1")
            return keep

        @model_validator(mode="after")
        def _one_way(self) -> "Score.Config":
            if self.threshold is not None and (self.keep is not None or self.by is not None):
                raise ValueError("threshold takes the place of keep and by: give one of them")
            return self

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config, self.context = config, context
        shares = config.keep if isinstance(config.keep, list) else [config.keep or 1.0]
        self.keep = shares[min(context.labelling_round, len(shares) - 1)]

    def __call__(self, predictions: Sequence[Prediction]) -> Mapping[str, str]:
        scored = [(p, value) for p in predictions if (value := score(p)) is not None]
        least = self.config.threshold
        if least is not None:
            return {p.id: f"score {value:.3f} below {least:g}" for p, value in scored if value < least}
        names = self._strata([p for p, _ in scored])
        groups = grouped(((p.scale, names.get(p.id, "")), (value, p.id)) for p, value in scored)
        reasons = {}
        for (scale, group), members in groups.items():
            whose = ", ".join(filter(None, (scale, group)))
            kept = max(1, round(self.keep * len(members)))
            for value, name in sorted(members, key=lambda m: (-m[0], m[1]))[kept:]:
                best = f"the best {self.keep:.0%}{whose and f' of {whose}'}"
                reasons[name] = f"score {value:.3f} below {best}"
        return reasons

    def _strata(self, predictions: Sequence[Prediction]) -> dict[str, str]:
        """Return the stratum of each prediction, by its id."""
        by, edges = self.config.by, self.config.edges
        if by is None:
            return {}
        if by == "duration":
            return {p.id: duration_stratum(p.duration, edges) for p in predictions}
        utterances = self.context.utterances()
        return {p.id: stratum(utterances[p.id], by) for p in predictions if p.id in utterances}


class Confidence:
    """Keeps labels whose tokens (words, of a teacher that works in words) the teacher was sure enough of."""

    class Config(Options):
        """``least`` of the ``mean`` (geometric) or of the ``minimum`` of a label's confidences, in [0, 1]."""

        of: Literal["mean", "minimum"] = "mean"
        least: float = Field(default=0.7, ge=0, le=1)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config = config
        self._value = QUANTITIES["confidence" if config.of == "mean" else "min_confidence"]

    def __call__(self, predictions: Sequence[Prediction]) -> Mapping[str, str]:
        def reason(prediction: Prediction, label: TeacherOutput) -> str | None:
            value = self._value(prediction)
            if value is None:
                return "no confidences to judge by"
            if value >= self.config.least:
                return None
            return f"{self.config.of} confidence {value:.2f} below {self.config.least:g}"

        return each(predictions, reason)
