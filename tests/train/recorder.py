"""A reporter that keeps what it is told in memory, and checkpoints in folders of their own."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysr.train.checkpoint import Snapshot
from raysr.train.metrics import StepMetrics


@dataclass
class Recorder:
    """Keeps every checkpoint and what was measured; stops the training after a step, as a crash would.

    Ranks may share its folder.
    """

    folder: Path
    stop_after: int | None = None
    rows: list[StepMetrics] = field(default_factory=list)
    dev_losses: list[float | None] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def losses(self) -> list[float]:
        return [row.loss for row in self.rows]

    def metrics(self, metrics: StepMetrics) -> None:
        self.rows.append(metrics)

    def checkpoint(self, snapshot: Snapshot, dev_loss: float | None) -> None:
        folder = self.folder / str(snapshot.step)
        folder.mkdir(parents=True, exist_ok=True)
        snapshot.write(folder)
        self.dev_losses.append(dev_loss)
        if snapshot.step == self.stop_after:
            raise InterruptedError

    def note(self, facts: dict[str, Any]) -> None:
        self.notes.append(facts)

    def left_out(self, name: str, reason: str) -> None:
        self.missing[name] = reason

    def finish(self) -> None:
        pass
