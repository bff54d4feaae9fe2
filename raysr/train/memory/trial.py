"""Steps of a student tried out in a process of its own, and the memory that they take at most.

Neither an error for want of memory nor the kernel's killing can hurt who asks, and nothing stays behind in caches.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist

from raysr.corpus.workers import DIED, WorkerProcess
from raysr.train.memory.gauge import Gauge, Room, gauge
from raysr.train.memory.shapes import Shape

Step = Callable[[Shape], object]
"""Takes a whole step, optimiser included, with a batch of a shape; of contexts that are drawn, with the dearest."""
MakeStep = Callable[[torch.device], Step]
"""Makes a student ready to step. It pickles, and finds a process group of one rank for what is distributed."""

STEPS = 2  # the first one makes the buckets and what optimisers and hooks keep, the second has all of it


@dataclass(frozen=True)
class _Task:
    make: MakeStep
    device: torch.device
    shapes: tuple[Shape, ...] = ()


class Trials:
    """A process for trials; a context manager.

    Args:
        make: makes the student.
        device: to try it on: a CPU, or a CUDA device with its index.
    """

    def __init__(self, make: MakeStep, device: torch.device) -> None:
        self._make, self._device = make, device
        self._process = WorkerProcess()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()

    def room(self) -> Room:
        """Return what the process takes before there is a student, and what is free beside it."""
        answer: Room = self._call(_room, _Task(self._make, self._device))
        return answer

    def peaks(self, shapes: Sequence[Shape]) -> list[int | None]:
        """Return the most bytes that the process takes in a step of each shape, or None for more than there are.

        The first shape is the smallest.
        """
        try:
            answer: list[int | None] = self._call(_peaks, _Task(self._make, self._device, tuple(shapes)))
        except DIED:
            self._process.kill()
            self._process = WorkerProcess()
            return [None] * len(shapes)
        return answer

    def _call(self, function: Callable[[_Task], object], task: _Task) -> Any:
        answer = self._process.call(function, task)
        if isinstance(answer, Exception):
            raise answer
        return answer


def _room(task: _Task) -> Room:
    return gauge(task.device).room()


def _peaks(task: _Task) -> list[int | None]:
    Path("/proc/self/oom_score_adj").write_text("1000")  # what is killed where the host's memory ends
    backend = "nccl" if task.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        return _tried(task)
    finally:
        gc.collect()  # DistributedDataParallel holds the group in circles
        dist.destroy_process_group()


def _tried(task: _Task) -> list[int | None]:
    step, measured = task.make(task.device), gauge(task.device)
    _peak(step, task.shapes[0], measured)
    return [_peak(step, shape, measured) for shape in task.shapes]


def _peak(step: Step, shape: Shape, measured: Gauge) -> int | None:
    measured.reset()
    try:
        for _ in range(STEPS):
            step(shape)
    except torch.OutOfMemoryError:
        return None
    return measured.peak()
