"""The training loop on a Ray cluster: Ray Train's `TorchTrainer` starts the workers and restarts what is lost."""

import contextlib
import shutil
import signal
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

from raysr.cluster import is_own, root_cause, training_environment
from raysr.errors import RaysrError, RunError
from raysr.train import checkpoint, loop
from raysr.train.job import Scaling, TrainJob
from raysr.train.ray_backend import GroupConfig
from raysr.train.ray_checkpoints import PREFIX, mend
from raysr.train.ray_preflight import check_network
from raysr.train.ray_reporter import SCORE, RayReporter


class _Trainer(TorchTrainer):
    """Ray Train's, without the actors that a training of ours has no use for: each takes a hundredth of a core."""

    def _create_default_callbacks(self) -> list[Any]:
        # we read no Ray datasets; what a dead controller leaves reserved in a cluster of ours is given back below
        unused = {"DatasetsCallback", *({"PlacementGroupCleanerCallback"} if is_own() else ())}
        given = super()._create_default_callbacks()  # type: ignore[misc]  # Ray Train V2 has it
        return [callback for callback in given if type(callback).__name__ not in unused]


def fit(job: TrainJob, scaling: Scaling, name: str) -> Path:
    """Train on the connected Ray cluster and return the file of the finished student's weights.

    A second call with the same `job.out` and `name` goes on from the newest checkpoint, also in a new process. Where
    `keep_best` checkpoints are kept only the newest one is kept beside them, whatever `keep_newest` says.

    Raises:
        RunError: the network between the nodes is not fit for it, or the training failed more often than `max_failures`
            allows.
    """
    out = Path(job.out)
    out.mkdir(parents=True, exist_ok=True)
    check_network(job, scaling)
    kept = _kept(job)
    mend(out / name, kept.checkpoint_score_attribute)
    # a pair is elastic; Ray's annotation does not know it yet
    workers: Any = scaling.max if scaling.min == scaling.max else (scaling.min, scaling.max)
    trainer = _Trainer(
        _worker,
        train_loop_config=job.model_copy(update={"timeout_s": float(scaling.timeout_s)}).dump(),
        torch_config=GroupConfig(timeout_s=scaling.timeout_s, environment=job.network.environment()),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=scaling.gpus > 0,
            resources_per_worker={"CPU": scaling.cpus} | ({"GPU": scaling.gpus} if scaling.gpus else {}),
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(out),
            failure_config=FailureConfig(max_failures=scaling.max_failures),
            checkpoint_config=kept,
        ),
    )
    try:
        with _keyboard_interrupt(), _no_places_left(), training_environment():
            result = trainer.fit()
    except Exception as error:
        raise RunError(
            f"training {name} failed: {_reason(error)}; its logs are under {out / name}"
        ) from error
    if result.checkpoint is None:
        raise RunError(f"training {name} ended without a checkpoint; its logs are under {out / name}")
    last = Path(result.checkpoint.path)
    scores = {Path(c.path): metrics.get(SCORE) for c, metrics in result.best_checkpoints or []}
    _remove_unfinished(out / name, {folder.name for folder in (last, *scores)})
    return checkpoint.weights(_best(scores, last) if job.train.final == "best" else last)


def _kept(job: TrainJob) -> CheckpointConfig:
    if job.dev is None or not job.train.keep_best:
        return CheckpointConfig(num_to_keep=job.train.keep_newest)
    return CheckpointConfig(
        num_to_keep=job.train.keep_best, checkpoint_score_attribute=SCORE, checkpoint_score_order="min"
    )


def _best(scores: Mapping[Path, float | None], last: Path) -> Path:
    """Return the checkpoint of the lowest loss on dev; the last one where none has any."""
    known = {folder: score for folder, score in scores.items() if score is not None}
    return min(known, key=known.__getitem__, default=last)


def _remove_unfinished(folder: Path, registered: Collection[str]) -> None:
    """Remove what workers that died left of checkpoints, of which Ray Train knows nothing."""
    for found in folder.glob(f"{PREFIX}*"):
        if found.name not in registered:
            shutil.rmtree(found, ignore_errors=True)


def _reason(error: Exception) -> str:
    """Return what ranks found out about it, such as who is missing, or else what became of each."""
    failures: dict[int, Exception] = error.worker_failures if isinstance(error, WorkerGroupError) else {}
    said = [str(failure) for failure in failures.values() if isinstance(failure, RaysrError)]
    each = [f"rank {rank}: {root_cause(failure)}" for rank, failure in failures.items()]
    return said[0] if said else "; ".join(each) or root_cause(error)


def _worker(config: dict[str, Any]) -> None:
    """Carry out one rank's part; Ray Train has made the process group."""
    job = TrainJob.parse(config)
    newest = ray.train.get_checkpoint()
    with contextlib.ExitStack() as stack:
        resume = Path(stack.enter_context(newest.as_directory())) if newest else None
        loop.train(job, RayReporter(Path(job.out)), resume)


@contextlib.contextmanager
def _no_places_left() -> Iterator[None]:
    """Give back what a training that fails has left reserved: where its controller was killed nobody else does."""
    before = set(placement_group_table())
    try:
        yield
    except BaseException:
        if is_own():
            for name, group in placement_group_table().items():
                if name not in before and group["state"] != "REMOVED":
                    remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(name)))
        raise


@contextlib.contextmanager
def _keyboard_interrupt() -> Iterator[None]:
    """Give Ctrl-C its exception back: Ray Train's handler ends the process, and stays in place."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
