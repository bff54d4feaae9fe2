"""The training loop without Ray: in this process, or on every rank of a `torchrun`."""

import gc
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from raysr.corpus.disk import exclusive, naming_folder, replacing, sync
from raysr.errors import RunError
from raysr.train import checkpoint, loop
from raysr.train.checkpoint import Snapshot
from raysr.train.job import TrainConfig, TrainJob
from raysr.train.journal import Journal
from raysr.train.network.addresses import source_towards, where_gloo_is_heard
from raysr.train.network.settings import environment
from raysr.train.student import rank_and_ranks
from raysr.train.watch import TOLD_TO_TORCH

POLL_S = 0.05
SCORE = "dev_loss.json"


def fit_local(job: TrainJob) -> Path:
    """Train here and return the file of the finished student's weights.

    A second call with the same `job.out` goes on from the newest checkpoint. Under `torchrun` every rank calls
    this, and gradients cross NCCL on GPUs, gloo elsewhere.

    Raises:
        RunError: the folder cannot be made.
        CorpusError: a training in it is under way already; and as :func:`raysr.train.loop.train` raises.
    """
    out = Path(job.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the training's folder {out}: {error.strerror}") from None
    with process_group(job), _alone_in(out):
        reporter = LocalReporter(out, job.train, job.timeout_s)
        checkpoints = [folder for folder in _checkpoints(out) if checkpoint.is_whole(folder)]
        loop.train(job, reporter, checkpoints[-1] if checkpoints else None)
        if dist.is_initialized():
            dist.barrier()  # until rank 0 has given the last checkpoint its name
        return checkpoint.weights(reporter.chosen())


class LocalReporter(Journal):
    """A :class:`~raysr.train.loop.Reporter` that keeps the newest and the best checkpoints in ``out``.

    Checkpoints are written in a thread, every rank its part; rank zero gives a folder its name once all are there.

    Args:
        out: the same folder on all ranks.
        config: says how many checkpoints are kept.
        timeout: seconds that rank zero waits for the others' parts.
    """

    def __init__(self, out: Path, config: TrainConfig, timeout: float) -> None:
        super().__init__(out, rank_and_ranks()[0])
        self._config, self._timeout = config, timeout
        self._writing: threading.Thread | None = None
        self._failed: BaseException | None = None
        if self.rank == 0:
            for partial in out.glob(".checkpoint-*"):
                shutil.rmtree(partial)

    def checkpoint(self, snapshot: Snapshot, dev_loss: float | None) -> None:
        self.finish()
        self._writing = threading.Thread(target=self._write, args=(snapshot, dev_loss), name="checkpoint")
        self._writing.start()

    def finish(self) -> None:
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        if self._failed is not None:
            raise self._failed

    def chosen(self) -> Path:
        """Return the checkpoint that the configuration calls the student's, on all ranks, once all is finished."""
        checkpoints = _checkpoints(self.out)
        if self._config.final == "last":
            return checkpoints[-1]
        return min(checkpoints, key=_score)

    def _write(self, snapshot: Snapshot, dev_loss: float | None) -> None:
        try:
            self._publish(snapshot, dev_loss)
        except BaseException as error:  # raised where the training can hear of it
            self._failed = error

    def _publish(self, snapshot: Snapshot, dev_loss: float | None) -> None:
        folder = self.out / f"checkpoint-{snapshot.step:09d}"
        partial = self.out / f".{folder.name}"
        with naming_folder(self.out):
            partial.mkdir(exist_ok=True)
            snapshot.write(partial)
            if self.rank == 0:
                if dev_loss is not None:
                    with replacing(partial / SCORE) as file:
                        file.write(json.dumps(dev_loss).encode())
                self._await_others(partial, snapshot.ranks)
                shutil.rmtree(folder, ignore_errors=True)
                partial.rename(folder)
                sync(self.out)
                for old in self._superfluous():
                    shutil.rmtree(old)

    def _await_others(self, partial: Path, ranks: int) -> None:
        deadline = time.monotonic() + self._timeout
        while absent := checkpoint.absent(partial, ranks):
            if time.monotonic() > deadline:
                raise RunError(
                    f"{self.out} lacks what ranks {absent} should have written within {self._timeout:g} s: the folder "
                    "has to be the same one on all hosts"
                )
            time.sleep(POLL_S)

    def _superfluous(self) -> list[Path]:
        """Return the checkpoints that are neither among the newest nor among the best."""
        older = _checkpoints(self.out)[: -self._config.keep_newest]
        scored = [folder for folder in _checkpoints(self.out) if (folder / SCORE).exists()]
        best = sorted(scored, key=_score)[: self._config.keep_best]
        return [folder for folder in older if folder not in best]


@contextmanager
def process_group(job: TrainJob) -> Iterator[None]:
    """Join the process group that `torchrun` describes, if it does: NCCL on GPUs, gloo elsewhere."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    heard = where_gloo_is_heard(source_towards(os.environ["MASTER_ADDR"]))
    with environment({**heard, **TOLD_TO_TORCH, **job.network.environment()}):
        dist.init_process_group("nccl" if on_gpus else "gloo", timeout=timedelta(seconds=job.timeout_s))
        try:
            yield
        finally:
            gc.collect()  # DistributedDataParallel holds the group in circles
            dist.destroy_process_group()


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Keep a second training out of the folder, from rank 0."""
    if rank_and_ranks()[0] == 0:
        with exclusive(out, wait=False):
            yield
    else:
        yield


def _checkpoints(out: Path) -> list[Path]:
    return sorted(out.glob("checkpoint-*"))


def _score(folder: Path) -> float:
    """Return the loss on dev: more than any other where there is none that is a number."""
    score = float(json.loads((folder / SCORE).read_text())) if (folder / SCORE).exists() else math.nan
    return math.inf if math.isnan(score) else score
