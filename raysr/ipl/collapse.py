"""Collapse: labels that teach the student to label worse, and the numbers by which it shows.

The modes and their cures are those of public work on pseudo-labelling (Likhomanenko et al. 2020, arXiv:2010.11524;
Higuchi et al. 2021, arXiv:2106.08922): empty labels, loops, deletions, labels that never settle, belief in oneself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from raysr.config import Config

Report = Mapping[str, Any]
Measure = Literal[
    "empty_rate", "loop_rate", "character_rate", "drift", "canary_rise", "kept_share", "student_rise"
]


class CollapseConfig(Config):
    """Limits beyond which a cycle has collapsed; null switches one off. Rates and rises are shares of 1.

    Attributes:
        at_least: labels of a cycle, below which nothing is said of them.
        empty_rate: the most that may be empty.
        loop_rate: the most in which the same two words come more than three times.
        character_rate: lowest and highest characters a second, in parts of those of the labelled audio; without
            any, of the first cycle that labelled.
        drift: the most of the labels' characters that may change from cycle to cycle, the first time apart.
        canary_rise: by how much the labels' WER on held-out transcribed audio may lie above its lowest.
        kept_share: the least that may be kept, in parts of the highest share that was.
        student_rise: by how much a student's WER on dev may lie above the lowest of any before it.
    """

    at_least: int = Field(default=50, ge=1)
    empty_rate: float | None = Field(default=0.5, ge=0, le=1)
    loop_rate: float | None = Field(default=0.3, ge=0, le=1)
    character_rate: tuple[float, float] | None = (0.4, 2.5)
    drift: float | None = Field(default=0.5, ge=0, le=1)
    canary_rise: float | None = Field(default=0.1, ge=0)
    kept_share: float | None = Field(default=0.1, ge=0, le=1)
    student_rise: float | None = Field(default=0.2, ge=0)


@dataclass(frozen=True)
class Collapse:
    """What was found: the measure, its value, the limit it passed, and both in a sentence."""

    measure: Measure
    value: float
    limit: float
    found: str

    @property
    def cure(self) -> str:
        """What helps against this one."""
        return CURES[self.measure]


CURES: Mapping[Measure, str] = {
    "empty_rate": "train longer on labelled audio before labelling (selector.first_cycle, trainer.steps_by_cycle), "
    "and filter with empty and character_rate",
    "loop_rate": "filter with loop, and label with CTC (decode.method: beam)",
    "character_rate": "filter with a narrower character_rate: labels that leave words out teach leaving them out",
    "drift": "average or smooth the teacher (builder: {kind: average}), or relabel a part of the audio each cycle",
    "canary_rise": "filter more strictly, and raise batcher.labelled_share: the student believes its own mistakes",
    "kept_share": "look at what the filters say (raysr report); a scale of scores that changed may need other limits",
    "student_rise": "filter more strictly, raise batcher.labelled_share, or start afresh (initializer.kind: scratch)",
}


def find_collapse(now: Report, before: Sequence[Report], config: CollapseConfig) -> Collapse | None:
    """Return how the cycle ``now`` has collapsed, if it has, given the reports of the cycles before it."""
    found = [detect(now, before, config) for detect in _OF_LABELS] if _enough(now, config) else []
    return next((c for c in [*found, student_collapse(now, before, config)] if c is not None), None)


def student_collapse(now: Report, before: Sequence[Report], config: CollapseConfig) -> Collapse | None:
    """Return how the student of ``now`` has collapsed, by its WER on dev."""
    return _rise("student_rise", "dev_wer", "of the student on dev", now, before, config)


def _enough(report: Report, config: CollapseConfig) -> bool:
    return bool((report.get("labels") or 0) >= config.at_least)


def _too_many(
    measure: Measure, what: str
) -> Callable[[Report, Sequence[Report], CollapseConfig], Collapse | None]:
    def detect(now: Report, before: Sequence[Report], config: CollapseConfig) -> Collapse | None:
        value, limit = now.get(measure), getattr(config, measure)
        if value is None or limit is None or value <= limit:
            return None
        return Collapse(measure, value, limit, f"{value:.0%} of the labels {what} (at most {limit:.0%})")

    return detect


def _character_rate(now: Report, before: Sequence[Report], config: CollapseConfig) -> Collapse | None:
    value, limits = now.get("characters_per_s"), config.character_rate
    labelled = [r for r in before if _enough(r, config)]
    usual = now.get("labelled_characters_per_s") or (
        labelled[0].get("characters_per_s") if labelled else None
    )
    if value is None or limits is None or not usual:
        return None
    low, high = (usual * limit for limit in limits)
    if low <= value <= high:
        return None
    found = f"the labels have {value:.1f} characters a second ({low:.1f} to {high:.1f} would be speech)"
    return Collapse("character_rate", value, low if value < low else high, found)


def _drift(now: Report, before: Sequence[Report], config: CollapseConfig) -> Collapse | None:
    value, limit = now.get("drift"), config.drift
    settled = any(report.get("drift") is not None for report in before)
    if value is None or limit is None or not settled or value <= limit:
        return None
    found = f"{value:.0%} of the labels' characters are not those of the cycle before (at most {limit:.0%})"
    return Collapse("drift", value, limit, found)


def _canary(now: Report, before: Sequence[Report], config: CollapseConfig) -> Collapse | None:
    return _rise("canary_rise", "canary_label_wer", "of the labels on held-out audio", now, before, config)


def _kept_share(now: Report, before: Sequence[Report], config: CollapseConfig) -> Collapse | None:
    value, part = now.get("kept_share"), config.kept_share
    earlier = [r["kept_share"] for r in before if _enough(r, config) and r.get("kept_share") is not None]
    if value is None or part is None or not earlier or value >= part * max(earlier):
        return None
    limit = part * max(earlier)
    return Collapse("kept_share", value, limit, f"{value:.1%} of the labels are kept (at least {limit:.1%})")


def _rise(
    measure: Measure, key: str, whose: str, now: Report, before: Sequence[Report], config: CollapseConfig
) -> Collapse | None:
    value, rise = now.get(key), getattr(config, measure)
    earlier = [report[key] for report in before if report.get(key) is not None]
    # above 1 there is nothing left to lose
    if value is None or rise is None or not earlier or min(1.0, value) <= min(earlier) + rise:
        return None
    found = f"WER {whose} is {value:.1%}, and was {min(earlier):.1%} (at most {rise:.0%} above)"
    return Collapse(measure, value, min(earlier) + rise, found)


_OF_LABELS = (
    _too_many("empty_rate", "are empty"),
    _too_many("loop_rate", "repeat themselves"),
    _character_rate,
    _drift,
    _canary,
    _kept_share,
)
