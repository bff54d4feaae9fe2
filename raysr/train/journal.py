"""What a training tells of itself, as rows of JSON in its folder."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from raysr.corpus.disk import append_row
from raysr.train.metrics import StepMetrics


class Journal:
    """Writes ``metrics.jsonl`` and ``notes.jsonl`` from rank 0, and ``left-out.jsonl`` from all ranks.

    Several ranks may leave out the same utterance: its last row counts.

    Args:
        out: the same folder on all ranks.
        rank: of this process.
    """

    def __init__(self, out: Path, rank: int) -> None:
        self.out, self.rank = out, rank

    def metrics(self, metrics: StepMetrics) -> None:
        """Tell how the steps since the last report went."""
        if self.rank == 0:
            append_row(self.out / "metrics.jsonl", asdict(metrics))

    def note(self, facts: dict[str, Any]) -> None:
        """Tell what was chosen, and why."""
        if self.rank == 0:
            append_row(self.out / "notes.jsonl", facts)

    def left_out(self, name: str, reason: str) -> None:
        """Tell of an utterance that is not trained on; from any thread."""
        append_row(self.out / "left-out.jsonl", {"id": name, "reason": reason, "rank": self.rank})
