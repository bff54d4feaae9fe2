"""What it costs to prepare batches, by the loop's own code for its data and nothing else."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from threading import BrokenBarrierError
from time import perf_counter
from typing import Any, NoReturn

import numpy as np
import torch

from raysr.errors import RunError
from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser
from raysr.train.data import Budget, Data, open_data
from raysr.train.job import TrainJob

EPOCHS = 2
PATIENCE_S = 600.0


@dataclass(frozen=True)
class Cost:
    """Of an epoch.

    Attributes:
        seconds: that the ranks took for their parts of all batches, together.
        hours: of audio in these.
    """

    seconds: float
    hours: float


def prepare(job: TrainJob, ranks: int) -> list[Cost]:
    """Return what each epoch takes where so many ranks, a process of one thread each, prepare their parts of it.

    They start an epoch together. The first epoch ends when everything was dealt: up to a window of the sampler's has
    then been dealt twice. Those after it have as many batches. What a rank raises ends all others.
    """
    spawn = multiprocessing.get_context("spawn")
    together = spawn.Barrier(ranks, timeout=PATIENCE_S)
    with ProcessPoolExecutor(ranks, spawn, _meet, (together,)) as processes:
        running = [processes.submit(_rank, job, rank, ranks) for rank in range(ranks)]
        failed = [error for each in running if (error := each.exception())]
        for error in failed:
            if not isinstance(
                error, BrokenBarrierError
            ):  # that is of those who waited for the one that failed
                raise error
        costs = [each.result() for each in running]
    return [Cost(sum(cost.seconds for cost in epoch), epoch[0].hours) for epoch in zip(*costs, strict=True)]


def _meet(together: Any) -> None:
    global _together
    _together = together
    torch.set_num_threads(1)


def _rank(job: TrainJob, rank: int, ranks: int) -> list[Cost]:
    try:
        tokeniser = Tokeniser.load(job.tokeniser)
        model = AsrModel(job.model, tokeniser.vocab_size)
        with open_data(job, model, tokeniser, _refuse, _refuse, _warn) as data:
            return list(epochs(job, data, rank, ranks, _together.wait))
    except BaseException:
        _together.abort()
        raise


def epochs(
    job: TrainJob, data: Data, rank: int, ranks: int, begin: Callable[[], object], count: int = EPOCHS
) -> Iterator[Cost]:
    """Prepare a rank's part of every batch, epoch after epoch, and yield what each takes this rank.

    Args:
        job: whose data they are.
        data: that are dealt.
        rank: whose parts are prepared.
        ranks: how many there are.
        begin: called before each epoch.
        count: of epochs.
    """
    assert isinstance(job.train.batch_seconds, float)
    sampler = data.sampler(Budget(data.frames(job.train.batch_seconds), None))
    frames = np.concatenate([np.asarray(source) for source in data.lengths.frames])
    left, step, length = set(range(len(frames))), 0, 0
    for _ in range(count):
        begin()
        started, first, dealt = perf_counter(), step, 0
        while left or step - first < length:
            indices = sampler.next()
            data.part(step, indices, None, rank, ranks)
            left.difference_update(indices.tolist())
            dealt += int(frames[indices].sum())
            step += 1
        length = length or step
        yield Cost(perf_counter() - started, dealt * job.features.frame_shift_ms / 3.6e6)


def _refuse(name: str, reason: str) -> NoReturn:
    raise RunError(f"{name} is left out: {reason}")


def _warn(reason: str) -> NoReturn:
    raise RunError(reason)
