"""Whether a training that was killed and went on took the steps that it would have taken undisturbed."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EXACT = ("loss", "ctc", "attention", "gradient_norm", "learning_rate", "skipped_steps", "too_short")
"""Of a step's metrics, those that do not depend on how busy a machine is."""

Row = Mapping[str, Any]


def read_rows(out: Path) -> list[dict[str, Any]]:
    """Return the metrics that a training has told so far; a line that is being written is left out."""
    file = out / "metrics.jsonl"
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]


def told(out: Path) -> int:
    """Return the last step that a training has told of; 0 where it has told of none."""
    rows = read_rows(out)
    return int(rows[-1]["step"]) if rows else 0


def different(rows: Sequence[Row], undisturbed: Sequence[Row]) -> list[int]:
    """Return the steps that were not taken, or of which any telling differs from the undisturbed one in any bit."""
    expected = {row["step"]: exact(row) for row in undisturbed}
    wrong = {row["step"] for row in rows if exact(row) != expected.get(row["step"])}
    return sorted(wrong | (expected.keys() - {row["step"] for row in rows}))


def exact(row: Row) -> tuple[float, ...]:
    """Return what has to be the same in each telling of a step; JSON keeps every bit of a float."""
    return tuple(row[name] for name in EXACT)
