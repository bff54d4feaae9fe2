"""Checkpoints of a training on Ray's workers: every rank writes its part in the background, Ray registers the whole.

A report is a barrier: ranks wait for each other before they write, and not in a collective of torch's. Ray Train takes
note of a checkpoint once every rank has written its part; of one that a rank could not finish it never hears, and a
restart goes on from the one before.
"""

import json
import math
import secrets
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint, CheckpointUploadMode
from ray.train.collective import broadcast_from_rank_zero

from raysr.corpus.disk import naming_folder, replacing, sync
from raysr.errors import RunError
from raysr.train.checkpoint import Snapshot
from raysr.train.journal import Journal
from raysr.train.metrics import StepMetrics
from raysr.train.ray_checkpoints import METRICS, PREFIX

SCORE = "dev_loss"


class RayReporter(Journal):
    """A :class:`~raysr.train.loop.Reporter` of a worker of Ray Train; all of them make it together.

    Args:
        out: the training's folder, the same one on all hosts.
    """

    def __init__(self, out: Path) -> None:
        super().__init__(out, ray.train.get_context().get_world_rank())
        self._last: dict[str, Any] = {}
        self._writing: Future[None] | None = None
        # a folder that workers before these left unfinished may hold parts of other ranks
        self._attempt = broadcast_from_rank_zero(secrets.token_hex(4))

    def metrics(self, metrics: StepMetrics) -> None:
        super().metrics(metrics)
        self._last = asdict(metrics)

    def checkpoint(self, snapshot: Snapshot, dev_loss: float | None) -> None:
        """Write it in the background, once the one before is written."""
        self.finish()
        name = f"{PREFIX}{snapshot.step:09d}-{self._attempt}"
        storage = ray.train.get_context().get_storage()
        place = Checkpoint(storage.build_checkpoint_path_from_name(name), storage.storage_filesystem)
        metrics = {**self._last, "step": snapshot.step}
        if dev_loss is not None:
            # Ray Train writes null for what is no number, and cannot compare that when it has read it again
            metrics[SCORE] = dev_loss if math.isfinite(dev_loss) else sys.float_info.max
        write, writing = _writer(snapshot, metrics)
        ray.train.report(
            metrics,
            checkpoint=place,
            checkpoint_dir_name=name,
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=write,
            delete_local_checkpoint_after_upload=False,  # it is where it shall stay
        )
        self._writing = writing

    def finish(self) -> None:
        """Return when this rank's part of the last checkpoint is written; raise what writing it raised."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None


def _writer(
    snapshot: Snapshot, metrics: Mapping[str, Any]
) -> tuple[Callable[[Checkpoint, str], Checkpoint], "Future[None]"]:
    """Return what Ray calls in a thread of its own, and what tells how that ended."""
    writing: Future[None] = Future()

    def write(place: Checkpoint, name: str) -> Checkpoint:
        try:
            _write(snapshot, metrics, Path(place.path))
        except BaseException as error:
            writing.set_exception(error)
            raise
        writing.set_result(None)
        return place

    return write, writing


def _write(snapshot: Snapshot, metrics: Mapping[str, Any], folder: Path) -> None:
    with naming_folder(folder.parent):
        try:
            folder.mkdir(exist_ok=True)
        except FileNotFoundError:
            raise RunError(
                f"{folder.parent} is not there for rank {snapshot.rank}: it has to be the same folder on all hosts"
            ) from None
        if snapshot.rank == 0:
            sync(folder.parent)
            with replacing(folder / METRICS) as file:
                file.write(json.dumps(metrics).encode())
        snapshot.write(folder)
