"""What of communication the backward pass does not hide."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Waiting:
    """Seconds between a rank's own last gradient and the end of its backward pass, summed over passes.

    Gradients that go while others are computed cost nothing; what a rank then waits for, compressing included, it
    pays. On a GPU these are seconds of its stream, told by events and summed when they are asked for.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._seconds = 0.0
        self._events: list[tuple[Any, Any]] = []
        self._on_gpu = device.type == "cuda"
        self._ready: Any = None
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._computed)

    @property
    def seconds(self) -> float:
        for ready, end in self._events:
            end.synchronize()
            self._seconds += ready.elapsed_time(end) / 1000
        self._events.clear()
        return self._seconds

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the backward pass within."""
        self._ready = self._now()
        yield
        if self._on_gpu:
            self._events.append((self._ready, self._now()))
        else:
            self._seconds += self._now() - self._ready

    def _computed(self, parameter: Tensor) -> None:
        if self._on_gpu:
            self._ready.record()
        else:
            self._ready = self._now()

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
