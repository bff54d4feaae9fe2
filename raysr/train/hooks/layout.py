"""A step's gradients as hooks see them: by parameter name, in one fixed order, whatever DDP's buckets are.

DDP hands gradients over bucket by bucket, and makes its buckets anew after the first step, after a resume, and wherever
the number of workers or the cap changes. What is kept from step to step is therefore kept by name.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

Reduce = Callable[[Mapping[str, Tensor]], None]
"""Replaces gradients, by name and in the shape of their parameters, by what all ranks make of them."""

Future = torch.futures.Future[Tensor]
Hook = Callable[[Any, dist.GradBucket], Future]


def gathering(model: nn.Module, reduce: Reduce) -> Hook:
    """Return a DDP hook that waits for a step's last bucket, and then reduces all gradients at once.

    Few collectives in a fixed order: nothing waits within a callback of the process group's threads, which is how
    hooks that talk twice a bucket block each other on gloo (torch 2.14), and latency is paid twice a step, not twice
    a bucket. Overlap with the backward pass is given up for it.
    """
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    waiting: list[tuple[dist.GradBucket, Future]] = []

    def hook(state: object, bucket: dist.GradBucket) -> Future:
        future: Future = torch.futures.Future()
        waiting.append((bucket, future))
        if bucket.is_last():
            found = {
                names[id(parameter)]: gradient
                for held, _ in waiting
                for parameter, gradient in zip(held.parameters(), held.gradients(), strict=True)
            }
            reduce({name: found[name] for name in names.values() if name in found})
            for held, promised in waiting:
                promised.set_result(held.buffer())
            waiting.clear()
        return future

    return hook
