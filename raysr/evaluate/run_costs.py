"""What a run took: seconds by step, what the cluster had meanwhile, and how fast it labelled and trained."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysr.evaluate.jsonl import read_jsonl

LABELLING, TRAINING = "predictions", "student"
"""The steps of ``events.jsonl`` that take the time."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """The last attempt at a step.

    Attributes:
        seconds: that it took.
        cpus, gpus: of the cluster when its cycle was begun or gone on with; None where that was not written down.
        attempts: how often it was begun; those before were cut off, and what they took is not known.
    """

    seconds: float
    cpus: float | None = None
    gpus: float | None = None
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class CycleCost:
    """A cycle's costs.

    Attributes:
        cycle: its number.
        steps: by name.
        offered_h: hours of audio that were labelled.
        step_seconds, data_wait: of a training step, medians over its reports; None without any.
    """

    cycle: int
    steps: Mapping[str, StepCost] = field(default_factory=dict)
    offered_h: float | None = None
    step_seconds: float | None = None
    data_wait: float | None = None

    @property
    def hours(self) -> float:
        """Of all steps together."""
        return sum(step.seconds for step in self.steps.values()) / 3600

    @property
    def core_hours(self) -> float | None:
        """CPU cores of the cluster times hours, whether they were busy or not."""
        return _held((step.cpus, step.seconds) for step in self.steps.values())

    @property
    def gpu_hours(self) -> float | None:
        """The same of GPUs."""
        return _held((step.gpus, step.seconds) for step in self.steps.values())

    def step_hours(self, name: str) -> float | None:
        """Return what a step took; None where the cycle has not had it."""
        return self.steps[name].seconds / 3600 if name in self.steps else None

    @property
    def labelling_speed(self) -> float | None:
        """Hours of audio labelled in an hour; None where nothing was, or an earlier attempt had done a part."""
        step = self.steps.get(LABELLING)
        if not self.offered_h or step is None or step.attempts > 1 or not step.seconds:
            return None
        return self.offered_h * 3600 / step.seconds


def read_costs(folder: Path, cycles: Sequence[Path], reports: Iterable[Mapping[str, Any]]) -> list[CycleCost]:
    """Read the costs of a run's cycles from its events, its trainings' metrics and its cycles' reports."""
    steps: dict[int, dict[str, StepCost]] = {}
    had: dict[int, tuple[float | None, float | None]] = {}
    begun: Counter[tuple[int, str]] = Counter()
    for event in read_jsonl(folder / "events.jsonl"):
        match event:
            case {"event": "cycle began", "cycle": int(cycle)}:
                had[cycle] = event.get("cpus"), event.get("gpus")
            case {"event": "step began", "cycle": int(cycle), "step": str(name)}:
                begun[cycle, name] += 1
            case {"event": "step ended", "cycle": int(cycle), "step": str(name), "seconds": float() | int()}:
                cost = StepCost(event["seconds"], *had.get(cycle, (None, None)), begun[cycle, name])
                steps.setdefault(cycle, {})[name] = cost
    offered = {number: report.get("offered_h") for number, report in enumerate(reports)}
    return [
        CycleCost(number, steps[number], offered.get(number), *_training(path / "train" / "metrics.jsonl"))
        for path in cycles
        if (number := int(path.name)) in steps
    ]


def _held(parts: Iterable[tuple[float | None, float]]) -> float | None:
    hours = [None if count is None else count * seconds / 3600 for count, seconds in parts]
    return None if None in hours else sum(hour for hour in hours if hour is not None)


def _training(metrics: Path) -> tuple[float | None, float | None]:
    rows = list(read_jsonl(metrics))
    return _median(rows, "seconds_per_step"), _median(rows, "data_wait")


def _median(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    found = [row[name] for row in rows if name in row]
    return statistics.median(found) if found else None
