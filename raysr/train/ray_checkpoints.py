"""Ray Train's list of a training's checkpoints, brought in line with the folders that lie there before it is read.

Ray Train starts with no list whose checkpoints are not all there, nor with one that was being written when its
controller was killed.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import (
    _CheckpointManagerState,
    _TrainingResultState,
)

from raysr.corpus.disk import replacing
from raysr.train.checkpoint import PROGRESS, is_whole

PREFIX = "checkpoint-"
METRICS = "metrics.json"


@dataclass(frozen=True)
class _Kept:
    """A checkpoint: when it was reported, the name of its folder, and the metrics that came with it."""

    report: int
    name: str
    metrics: Mapping[str, Any]


def mend(folder: Path, score: str | None) -> None:
    """Let Ray Train's list of a training have the checkpoints that are there, if there is a list.

    Args:
        folder: of the training, where Ray Train keeps them.
        score: the metric of which the lowest is kept, if the best are.
    """
    listed = folder / CHECKPOINT_MANAGER_SNAPSHOT_FILENAME
    if not listed.exists():
        return
    try:
        state = json.loads(listed.read_text())
        kept = [
            _Kept(report, result["checkpoint_dir_name"], result["metrics"])
            for report, result in zip(
                state["checkpoint_report_indices"], state["checkpoint_results"], strict=True
            )
        ]
    except json.JSONDecodeError:
        _write(listed, _whole(folder), score)
        return
    there = [one for one in kept if is_whole(folder / one.name)]
    if len(there) < len(kept):
        _write(listed, there, score)


def _whole(folder: Path) -> list[_Kept]:
    """Return the checkpoints whose ranks have all written their part; which they are, their steps say."""
    found = []
    for path in filter(is_whole, folder.glob(f"{PREFIX}*")):
        try:
            metrics = json.loads((path / METRICS).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            continue  # one that was being written when the power went
        step = json.loads((path / PROGRESS).read_text())["step"]
        found.append(_Kept(step, path.name, metrics))
    return found


def _write(listed: Path, kept: Sequence[_Kept], score: str | None) -> None:
    """Write a list; in it the best comes last, or else the newest."""
    order = sorted(kept, key=lambda one: one.report)
    newest = order[-1] if order else None
    if score is not None:
        order.sort(key=lambda one: -one.metrics.get(score, math.inf))
    state = _CheckpointManagerState(
        checkpoint_results=[_result(one) for one in order],
        checkpoint_report_indices=[one.report for one in order],
        latest_checkpoint_result=_result(newest) if newest else None,
        pending_training_results=[],
        pending_validation_specs=[],
        current_report_index=newest.report + 1 if newest else 0,
        validated_checkpoint_dir_names=[],
        timed_out_validation_checkpoint_dir_names=[],
        failed_validation_checkpoint_dir_names=[],
    )
    with replacing(listed) as file:
        file.write(state.model_dump_json().encode())


def _result(kept: _Kept) -> _TrainingResultState:
    return _TrainingResultState(checkpoint_dir_name=kept.name, metrics=dict(kept.metrics))
