"""The training loop without Ray: in this process, or on every rank of a `torchrun`."""

import gc
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist

from raysr.train import loop
from raysr.train.job import TrainJob


def fit_local(job: TrainJob) -> Path:
    """Train here and return the file of the finished student's weights.

    A second call with the same `job.out` goes on from the newest checkpoint. Under `torchrun` every rank calls
    this, and gradients cross NCCL on GPUs, gloo elsewhere.
    """
    out = Path(job.out)
    out.mkdir(parents=True, exist_ok=True)
    with process_group():
        checkpoints = sorted(out.glob("checkpoint-*"))
        training = loop.train(job, LocalReporter(out), checkpoints[-1] if checkpoints else None)
    return out / _name(training.step) / "model.safetensors"


class LocalReporter:
    """Keeps the newest checkpoint and appends metrics to `metrics.jsonl`, both from rank zero."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.is_first = not dist.is_initialized() or dist.get_rank() == 0

    def metrics(self, metrics: loop.StepMetrics) -> None:
        if self.is_first:
            with open(self.out / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(metrics)) + "\n")

    def checkpoint(self, step: int, write: Callable[[Path], None]) -> None:
        if not self.is_first:
            return
        partial = self.out / f".{_name(step)}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write(partial)
        partial.rename(self.out / _name(step))
        for old in sorted(self.out.glob("checkpoint-*"))[:-1]:
            shutil.rmtree(old)


def _name(step: int) -> str:
    return f"checkpoint-{step:09d}"


@contextmanager
def process_group() -> Iterator[None]:
    """Join the process group that `torchrun` describes, if it does: NCCL on GPUs, gloo elsewhere."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        gc.collect()  # DistributedDataParallel holds the group in circles
        dist.destroy_process_group()
