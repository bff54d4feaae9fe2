"""The training loop: distributed data parallel when a process group is there, a single process otherwise.

Knows no Ray: :mod:`raysr.train.ray_trainer` runs it on a cluster's workers, a test runs it in its own process.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import open_manifest
from raysr.model.model import AsrModel, Losses
from raysr.text.tokeniser import Tokeniser
from raysr.train import checkpoint, comm, precision
from raysr.train.batch import Batch, BatchMaker
from raysr.train.distillation import SequenceTargets, Targets, WordTargets
from raysr.train.distributions import StoredDistributions
from raysr.train.job import TrainJob
from raysr.train.optim import build_optimiser, build_schedule
from raysr.train.sampler import MixedSampler, scale, shard


@dataclass(frozen=True)
class StepMetrics:
    """Means over the steps since the last report.

    `data_wait` is the share of time spent waiting for a batch, `padding` that of this rank's batches that is padding.
    """

    step: int
    loss: float
    ctc: float
    attention: float
    gradient_norm: float
    learning_rate: float
    seconds_per_step: float
    data_wait: float
    padding: float
    skipped_steps: int
    too_short: int


class Reporter(Protocol):
    """Where a training tells how it goes; every rank calls the same methods in the same order."""

    def metrics(self, metrics: StepMetrics) -> None: ...

    def checkpoint(self, step: int, write: Callable[[Path], None]) -> None: ...


class Training:
    """One rank's share of a training: the student, its optimiser and the batches, ready to step."""

    def __init__(self, job: TrainJob, device: torch.device) -> None:
        self.job, self.config, self.device = job, job.train, device
        self.rank, self.world_size = _rank_and_world_size()
        tokeniser = Tokeniser.load(job.tokeniser)
        sources = [list(open_manifest(source.manifest)) for source in job.sources]
        cache = FeatureCache(job.cache, job.features)
        everything = [utterance for source in sources for utterance in source]
        self.batches = BatchMaker(everything, cache, tokeniser, self.config.augment, job.seed)
        self.batches.targets = _targets(job, self.batches, tokeniser)
        self.sampler = MixedSampler(
            [[cache.frames(u) for u in source] for source in sources],
            [source.share for source in job.sources],
            round(self.config.batch_seconds * 1000 / job.features.frame_shift_ms),
            self.config.max_padding,
            job.seed,
        )
        self.model = AsrModel(job.model, tokeniser.vocab_size)
        self.model.load_state_dict(load_file(job.init))
        self.model.to(device).train()
        self.loss = self._distribute(self.model)
        self.optimiser = build_optimiser(self.model, self.config.optimiser)
        self.schedule = build_schedule(self.optimiser, self.config.schedule, self.config.steps)
        self.precision = precision.choose(self.config.precision, device)
        self.step = 0
        self.skipped_steps = 0

    def resume(self, folder: Path) -> None:
        """Go on exactly where the checkpoint in `folder` was written."""
        state, progress = checkpoint.load(folder, self.model)
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.precision.scaler.load_state_dict(state["scaler"])
        self.sampler.load_state_dict(progress.sampler)
        self.step, self.skipped_steps = progress.step, progress.skipped_steps

    def run(self, reporter: Reporter) -> None:
        """Take every step that is left, reporting metrics and checkpoints on the way."""
        window = _Window()
        for batch, factor, wait in self._prefetched():
            self._update(batch, factor, window)
            window.wait += wait
            window.padding += batch.padding
            if self.step % self.config.log_every == 0 or self.step == self.config.steps:
                reporter.metrics(window.metrics(self))
                window = _Window()
            if self.step % self.config.checkpoint_every == 0 or self.step == self.config.steps:
                reporter.checkpoint(self.step, partial(self._save, self._progress()))

    def _progress(self) -> checkpoint.Progress:
        return checkpoint.Progress(self.step, self._sampler_state, self.skipped_steps)

    def _save(self, progress: checkpoint.Progress, folder: Path) -> None:
        checkpoint.save(folder, self.model, self._state(), progress)

    def _update(self, batch: Batch, factor: float, window: "_Window") -> None:
        torch.manual_seed(_seed(self.job.seed, self.step, self.rank))  # dropout
        # the same on all ranks, so that none waits for one with a larger chunk
        generator = torch.Generator().manual_seed(_seed(self.job.seed, self.step, 0, 1))
        there = batch.to(self.device)
        with self.precision.autocast():
            losses: Losses = self.loss(*there.tensors, generator, there.distillation, there.weights)
        total = losses.total * float(batch.weights.sum())
        scaler = self.precision.scaler
        self.optimiser.zero_grad(set_to_none=True)
        scaler.scale(total * factor).backward()
        scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimiser.clip, foreach=True)
        # gradients are already averaged, so a norm that is not finite is so on every rank and all skip alike
        if torch.isfinite(norm):
            scaler.step(self.optimiser)
            self.schedule.step()
            window.add(losses.total.detach(), losses.ctc.detach(), losses.attention.detach(), norm)
        else:
            self.skipped_steps += 1
        scaler.update()
        self.step += 1
        window.too_short += int(losses.utterances_too_short)

    def _prefetched(self) -> Iterator[tuple[Batch, float, float]]:
        """Yield (batch, factor of its summed loss, seconds waited), making the next one while it is trained on."""
        with ThreadPoolExecutor(1) as executor:
            pending = self._submit(executor, self.step)
            while self.step < self.config.steps:
                started = time.perf_counter()
                batch, factor = pending.result()
                wait = time.perf_counter() - started
                self._sampler_state = self.sampler.state_dict()
                if self.step + 1 < self.config.steps:
                    pending = self._submit(executor, self.step + 1)
                yield batch, factor, wait

    def _submit(self, executor: ThreadPoolExecutor, step: int) -> "Future[tuple[Batch, float]]":
        indices = self.sampler.next()
        mine = shard(indices, self.rank, self.world_size)
        generator = torch.Generator().manual_seed(_seed(self.job.seed, step, self.rank, 2))
        factor = scale(self.batches.weights[indices], self.rank, self.world_size)
        return executor.submit(lambda: (self.batches.make(mine, generator), factor))

    def _distribute(self, model: AsrModel) -> nn.Module:
        if self.world_size == 1:
            return model
        ddp = DistributedDataParallel(
            model,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            bucket_cap_mb=self.config.comm.bucket_mb,
        )
        comm.register_hook(ddp, self.config.comm)
        return ddp

    def _state(self) -> dict[str, Any]:
        return {
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
        }


class _Window:
    """Sums since the last report."""

    def __init__(self) -> None:
        self.sums: list[Tensor] = []
        self.too_short = 0
        self.wait = self.padding = 0.0
        self.started = time.perf_counter()

    def add(self, *values: Tensor) -> None:
        self.sums.append(torch.stack([v.float() for v in values]))

    def metrics(self, training: Training) -> StepMetrics:
        seconds = time.perf_counter() - self.started
        means = torch.stack(self.sums).mean(0).tolist() if self.sums else [float("nan")] * 4
        loss, ctc, attention, gradient_norm = means
        steps = (training.step - 1) % training.config.log_every + 1
        return StepMetrics(
            step=training.step,
            loss=loss,
            ctc=ctc,
            attention=attention,
            gradient_norm=gradient_norm,
            learning_rate=training.optimiser.param_groups[0]["lr"],
            seconds_per_step=seconds / steps,
            data_wait=self.wait / max(seconds, 1e-9),
            padding=self.padding / steps,
            skipped_steps=training.skipped_steps,
            too_short=self.too_short,
        )


def train(job: TrainJob, reporter: Reporter, resume: Path | None = None) -> Training:
    """Carry out a training on this rank and return it finished.

    Joins the default process group when there is one; CUDA device = the current one.

    Args:
        job: what to train.
        reporter: told of metrics and checkpoints.
        resume: folder of a checkpoint to go on from.

    Raises:
        CorpusError: an utterance has no text or no cached features.
        RunError: the checkpoint cannot be used.
    """
    device = (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )
    with _one_thread_on_cpu(device):
        training = Training(job, device)
        if resume is not None:
            training.resume(resume)
        training.run(reporter)
        # the hooks of what synchronises gradients may not outlive the process group: its threads would let go of
        # them in an interpreter that is ending, which aborts
        training.loss = training.model
    return training


@contextmanager
def _one_thread_on_cpu(device: torch.device) -> Iterator[None]:
    """A rank is a core: more threads a process fight with the other ranks."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _targets(job: TrainJob, batches: BatchMaker, tokeniser: Tokeniser) -> Targets | None:
    word, sequence = job.distillation.word, job.distillation.sequence
    if word and job.distributions:
        stored = StoredDistributions([Path(folder) for folder in job.distributions], tokeniser)
        return WordTargets(batches.utterances, batches.tokens, stored, word)
    return SequenceTargets(batches.utterances, batches.tokens, tokeniser, sequence) if sequence else None


def _rank_and_world_size() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _seed(*parts: int) -> int:
    """Mix integers into one 63-bit seed."""
    value = 0x9E3779B97F4A7C15
    for part in parts:
        value = (value ^ (part + 0x632BE59BD9B4E019)) * 0xD6E8FEB86659FD93 & (2**64 - 1)
        value ^= value >> 32
    return value >> 1
