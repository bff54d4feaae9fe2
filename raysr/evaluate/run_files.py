"""What a report shows, read from the plain files of a run's folder; what is not there yet is left empty."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from raysr.errors import RunError
from raysr.evaluate.jsonl import read_jsonl
from raysr.evaluate.run_costs import CycleCost, read_costs
from raysr.evaluate.run_scores import RunScores, read_scores

REASONS = 30
_NAMES = re.compile(r"^utterance \S+:|\S*/\S*|\d+(\.\d+)?")  # what differs between failures of one kind


@dataclass(frozen=True, slots=True)
class RunFiles:
    """One run, finished or not."""

    folder: Path
    cycles: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False
    stopped: str | None = None
    best: str | None = None
    losses: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    reasons: list[dict[str, Any]] = field(default_factory=list)
    filters: list[dict[str, Any]] = field(default_factory=list)
    scores: RunScores = field(default_factory=RunScores)
    costs: list[CycleCost] = field(default_factory=list)
    lineage: list[dict[str, Any]] = field(default_factory=list)
    config: str = ""

    @property
    def name(self) -> str:
        return self.folder.resolve().name


def read_run(folder: Path) -> RunFiles:
    """Read a run's folder; raise :class:`RunError` when it holds no run."""
    config = folder / "config.yaml"
    if not config.is_file():
        raise RunError(f"{folder} holds no run: there is no config.yaml in it; name the folder of `run.dir`")
    cycles = sorted(path for path in folder.glob("cycles/*") if path.is_dir())
    report = _json(folder / "report.json")
    finished = [cycle for path in cycles if (cycle := _json(path / "report.json"))]
    done = report.get("cycles") or finished
    return RunFiles(
        folder=folder,
        cycles=done,
        finished=bool(report.get("finished")),
        stopped=(report.get("stopped") or {}).get("reason"),
        best=report.get("best"),
        losses={f"cycle {int(path.name)}": curve for path in cycles if (curve := _losses(path))},
        reasons=[
            *_held_out(folder, "all", "held out, trained on"),
            *(
                row
                for path in cycles
                for row in (*_held_out(path, int(path.name), "held out"), *_reasons(path))
            ),
        ],
        filters=list(_filters(cycles)),
        scores=read_scores(cycles),
        costs=read_costs(folder, cycles, done),
        lineage=list(_lineage(folder / "pool")),
        config=config.read_text(encoding="utf-8"),
    )


def last_filters(folder: Path) -> dict[str, Any] | None:
    """Return what the filters of the last cycle that labelled are worth."""
    return next(_filters(sorted(folder.glob("cycles/*"), reverse=True)), None)


def _filters(cycles: Sequence[Path]) -> Iterator[dict[str, Any]]:
    return (report for path in cycles if (report := _json(path / "filters.json")))


def _losses(cycle: Path) -> list[tuple[float, float]]:
    """Return (step, loss); a resumed training writes some steps again, and the last word on a step counts."""
    rows = {
        row["step"]: row["loss"] for row in read_jsonl(cycle / "train" / "metrics.jsonl") if "loss" in row
    }
    return sorted((float(step), float(loss)) for step, loss in rows.items())


def _reasons(cycle: Path) -> Iterator[dict[str, Any]]:
    """Yield how much was kept, dropped by each filter, or failed alike, with one reason each; the commonest first."""
    path = cycle / "decisions.parquet"
    if not path.is_file():
        return
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in pq.read_table(path).to_pylist():
        alike = row.get("rule") or _NAMES.sub("…", row.get("reason") or "")
        groups.setdefault((row["status"], alike), []).append(row)
    for (status, _), rows in sorted(groups.items(), key=lambda item: -len(item[1]))[:REASONS]:
        yield {
            "cycle": int(cycle.name),
            "status": status,
            "rule": rows[0].get("rule"),
            "reason": rows[0].get("reason") or "",
            "utterances": len(rows),
            "hours": sum(row.get("duration") or 0.0 for row in rows) / 3600,
        }


def _held_out(folder: Path, cycle: int | str, status: str) -> Iterator[dict[str, Any]]:
    """Yield how much of what was selected, or is labelled, is the audio of dev or test utterances."""
    rows = list(read_jsonl(folder / "held-out.jsonl"))
    if rows:
        told = {"cycle": cycle, "status": status, "rule": None, "reason": rows[0]["reason"]}
        yield told | {"utterances": len(rows), "hours": None}


def _lineage(pool: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(pool.glob("*/metrics.json")):
        metrics = _json(path)
        weights = _json(path.parent / "manifest.json").get("files", {}).get("model.safetensors", "")
        yield {
            "name": path.parent.name,
            "parents": [str(parent) for parent in metrics.get("parents") or []],
            "weights": weights[:12],
        }


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
