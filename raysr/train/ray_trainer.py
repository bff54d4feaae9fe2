"""The training loop on a Ray cluster: Ray Train's `TorchTrainer` starts the workers and restarts what is lost."""

import contextlib
import json
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from raysr.cluster import root_cause
from raysr.errors import RunError
from raysr.train import loop
from raysr.train.job import Scaling, TrainJob


def fit(job: TrainJob, scaling: Scaling, name: str) -> Path:
    """Train on the connected Ray cluster and return the file of the finished student's weights.

    A second call with the same `job.out` and `name` goes on from the newest checkpoint, also in a new process.

    Raises:
        RunError: the training failed more often than `max_failures` allows.
    """
    out = Path(job.out)
    # a pair is elastic; Ray's annotation does not know it yet
    workers: Any = scaling.max if scaling.min == scaling.max else (scaling.min, scaling.max)
    trainer = TorchTrainer(
        _worker,
        train_loop_config=job.dump(),
        torch_config=TorchConfig(timeout_s=scaling.timeout_s),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=scaling.gpus > 0,
            resources_per_worker={"CPU": scaling.cpus} | ({"GPU": scaling.gpus} if scaling.gpus else {}),
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(out),
            failure_config=FailureConfig(max_failures=scaling.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    try:
        with _keyboard_interrupt():
            result = trainer.fit()
    except Exception as error:
        raise RunError(
            f"training {name} failed: {root_cause(error)}; its logs are under {out / name}"
        ) from error
    if result.checkpoint is None:
        raise RunError(f"training {name} ended without a checkpoint; its logs are under {out / name}")
    return Path(result.checkpoint.path) / "model.safetensors"


def _worker(config: dict[str, Any]) -> None:
    job = TrainJob.parse(config)
    newest = ray.train.get_checkpoint()
    with contextlib.ExitStack() as stack:
        resume = Path(stack.enter_context(newest.as_directory())) if newest else None
        loop.train(job, _RayReporter(Path(job.out)), resume)


class _RayReporter:
    """Reports checkpoints through Ray Train, and metrics into `metrics.jsonl` from rank zero."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.last: dict[str, Any] = {}
        self.is_first = ray.train.get_context().get_world_rank() == 0

    def metrics(self, metrics: loop.StepMetrics) -> None:
        self.last = asdict(metrics)
        if self.is_first:
            with open(self.out / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(self.last) + "\n")

    def checkpoint(self, step: int, write: Callable[[Path], None]) -> None:
        if not self.is_first:
            ray.train.report(self.last)
            return
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            ray.train.report(self.last, checkpoint=Checkpoint.from_directory(folder))


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
