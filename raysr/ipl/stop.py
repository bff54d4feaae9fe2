"""When a run is over before it has all its cycles: nothing gets better any more, or it has collapsed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import Field

from raysr.config import Config
from raysr.errors import RunError
from raysr.ipl.collapse import CollapseConfig, Report, find_collapse


class StopConfig(Config):
    """When to stop. May be changed when a run is started again, which is how a stopped one is told to go on.

    Attributes:
        enabled: false: never, whatever the numbers.
        patience: stop after so many cycles without a lower ``metric``; null: never for that.
        metric: the student's WER on dev, the WER of the labels on held-out audio, or their drift from cycle to cycle.
        gain: by how much it has to fall to count as lower.
        collapse: the limits beyond which a run has collapsed.
    """

    enabled: bool = True
    patience: int | None = Field(default=None, ge=1)
    metric: Literal["dev_wer", "canary_label_wer", "drift"] = "dev_wer"
    gain: float = Field(default=0.0, ge=0)
    collapse: CollapseConfig = CollapseConfig()


@dataclass(frozen=True)
class Stop:
    """Why a run is over, as ``report.json`` says it.

    Attributes:
        kind: ``flat`` is an end like any other, ``collapse`` an error.
        cycle: in which it showed.
        measure: by which.
        value, limit: of the measure.
        reason: all that in a sentence, with what helps.
    """

    kind: Literal["flat", "collapse"]
    cycle: int
    measure: str
    value: float
    limit: float
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


class RunCollapsedError(RunError):
    """A run that was stopped lest it get worse; names the measure, its numbers and a cure."""


def collapsed(now: Report, before: Sequence[Report], config: StopConfig) -> Stop | None:
    """Return how a cycle has collapsed; ``now`` is its report, or the measures of its labels alone."""
    collapse = find_collapse(now, before, config.collapse) if config.enabled else None
    if collapse is None:
        return None
    cycle = int(now["cycle"])
    reason = (
        f"cycle {cycle} has collapsed: {collapse.found}. What helps: {collapse.cure}. To go on all the same, set "
        f"stop.collapse.{collapse.measure}, or stop.enabled=false"
    )
    return Stop("collapse", cycle, collapse.measure, collapse.value, collapse.limit, reason)


def flat(reports: Sequence[Report], config: StopConfig) -> Stop | None:
    """Return why a run with these reports, one a cycle, gets no better; None: it does, or may yet."""
    best, waited, value = float("inf"), 0, float("nan")
    for report in reports:
        if (found := report.get(config.metric)) is None:
            continue
        value, waited = found, waited + 1
        if value < best - config.gain:
            best, waited = value, 0
    if not config.enabled or config.patience is None or waited < config.patience:
        return None
    cycle = int(reports[-1]["cycle"])
    reason = (
        f"{config.metric} has not fallen below {best:.1%} by more than {config.gain:.1%} for {waited} "
        f"{'cycle' if waited == 1 else 'cycles'}. To go on all the same, raise stop.patience or set stop.enabled=false"
    )
    return Stop("flat", cycle, config.metric, value, best, reason)
