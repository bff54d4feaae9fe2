"""How long what all ranks do takes, on a CPU and on a GPU, agreed between them."""

import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor


def median_seconds(action: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Return the median seconds of an action that all ranks take together.

    A first time is not counted: connections are opened in it, and DDP puts its buckets in order.
    """
    seconds = []
    for _ in range(rounds + 1):
        settle(device)
        started = time.perf_counter()
        action()
        settle(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def slowest(seconds: float, device: torch.device) -> float:
    """Return what the slowest rank measured."""
    found: Tensor = torch.tensor(seconds, dtype=torch.float64, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return float(found)


def settle(device: torch.device) -> None:
    """Wait until the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
