"""What of communication computing does not hide."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Stopwatch:
    """Seconds of blocks of code, summed; on a GPU those of its stream, told by events and summed when asked for.

    Args:
        device: on which the code computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._seconds = 0.0
        self._events: list[tuple[Any, Any]] = []
        self._on_gpu = device.type == "cuda"

    @property
    def seconds(self) -> float:
        for begin, end in self._events:
            end.synchronize()
            self._seconds += begin.elapsed_time(end) / 1000
        self._events.clear()
        return self._seconds

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the block."""
        begin = self._now()
        yield
        self._count(begin)

    def _count(self, begin: Any) -> None:
        """Count what has passed since a time."""
        if self._on_gpu:
            self._events.append((begin, self._now()))
        else:
            self._seconds += self._now() - begin

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class Waiting(Stopwatch):
    """Counts what lies between a rank's own last gradient and the end of its backward pass, too.

    Gradients that go while others are computed cost nothing; what a rank then waits for, compressing included, it
    pays.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__(device)
        self._ready: Any = None
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._computed)

    @contextmanager
    def after_gradients(self) -> Iterator[None]:
        """Count the end of the backward pass within."""
        self._ready = self._now()
        yield
        self._count(self._ready)

    def _computed(self, parameter: Tensor) -> None:
        if self._on_gpu:
            self._ready.record()
        else:
            self._ready = self._now()
