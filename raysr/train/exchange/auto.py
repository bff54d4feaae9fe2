"""Which exchange is fastest here, found by timing real steps before a training begins.

What a candidate takes at least is known beforehand: its bytes, over the bandwidth that an all-reduce was seen to have.
One that cannot win is not tried, so that a slow link costs seconds and not minutes.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.distributed as dist

from raysr.config import Spec
from raysr.train.exchange.base import EXCHANGES, Exchange, ExchangeContext, Loss
from raysr.train.network.timing import median_seconds, slowest

Accuracy = Literal["exact", "rounded", "compressed"]
ROUNDS = 3
PROBE_BYTES = 4 << 20
CLOSE = 1.05  # so many times the fastest's seconds are as good, and the more exact one is taken


@dataclass(frozen=True)
class Candidate:
    """An exchange that may be chosen, with the fewest bytes that it sends for a number."""

    kind: str
    accuracy: Accuracy
    bytes_each: float
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> Spec:
        return Spec(kind=self.kind, **self.options)

    @property
    def trial(self) -> Spec:
        """The same from the first step on."""
        return Spec(kind=self.kind, **self.options, **({"start": 0} if self.accuracy == "compressed" else {}))


ACCURACIES: Sequence[Accuracy] = ("exact", "rounded", "compressed")
CANDIDATES = (
    Candidate("powersgd", "compressed", 0, {"rank": 4}),
    Candidate("8bit", "compressed", 1),
    Candidate("bf16", "rounded", 2),
    Candidate("fp16", "rounded", 2),
    Candidate("none", "exact", 4),
)
"""The fewest bytes come first: who is tried later has a time to beat."""


@dataclass(frozen=True)
class Choice:
    """What was chosen, the same on all ranks, and what that rests on.

    Attributes:
        spec: of the exchange, for :data:`~raysr.train.exchange.base.EXCHANGES`.
        computing: seconds of a backward pass that exchanges nothing, forward pass included.
        bandwidth: bytes a second of each rank's link in an all-reduce; infinite for one rank.
        seconds: of a step with each candidate that was tried, the slowest rank's.
        at_least: seconds that each of the others would take for its bytes alone.
    """

    spec: Spec
    computing: float
    bandwidth: float
    seconds: Mapping[str, float]
    at_least: Mapping[str, float]

    def __str__(self) -> str:
        tried = ", ".join(f"{kind} {1000 * s:.0f} ms" for kind, s in self.seconds.items())
        others = "".join(
            f"; {kind} would take {1000 * s:.0f} ms or more" for kind, s in self.at_least.items()
        )
        return (
            f"{self.spec.kind}: a step computes for {1000 * self.computing:.0f} ms and the link has "
            f"{8e-6 * self.bandwidth:.0f} Mbit/s; with {tried}{others}"
        )


def choose(context: ExchangeContext, loss: Loss, accuracy: Accuracy) -> Choice:
    """Time steps of a loss on copies of the model, on all ranks at once, and return the fastest exchange.

    Args:
        context: what the exchange would be made for; its model stays as it is.
        loss: of a batch of the training.
        accuracy: how far gradients may be from their mean: not at all but for float32's rounding, by rounding them
            to half as many bits, or by what error feedback brings back in later steps.
    """
    allowed = ACCURACIES[: ACCURACIES.index(accuracy) + 1]
    numbers = sum(p.numel() for p in context.model.parameters() if p.requires_grad)
    computing = _timed(context, Spec(kind="none"), loss, exchanges=False)
    bandwidth = _bandwidth(context.device, min(PROBE_BYTES, 4 * numbers))
    ranks = dist.get_world_size()
    seconds: dict[str, float] = {}
    at_least: dict[str, float] = {}
    candidates = [c for c in CANDIDATES if c.accuracy in allowed]
    for candidate in candidates:
        least = 2 * (ranks - 1) / ranks * candidate.bytes_each * numbers / bandwidth
        if seconds and least > CLOSE * min(seconds.values()):
            at_least[candidate.kind] = least
        else:
            seconds[candidate.kind] = _timed(context, candidate.trial, loss)
    good_enough = CLOSE * min(seconds.values())
    chosen = [c for c in candidates if seconds.get(c.kind, good_enough + 1) <= good_enough][-1]
    return Choice(chosen.spec, computing, bandwidth, seconds, at_least)


def _timed(context: ExchangeContext, spec: Spec, loss: Loss, exchanges: bool = True) -> float:
    """Return the median seconds of a step of the slowest rank, with gradients exchanged or not."""
    model = copy.deepcopy(context.model)
    exchange: Exchange = EXCHANGES.build(spec, ExchangeContext(model, context.device, context.seed))

    def step() -> None:
        model.zero_grad(set_to_none=True)
        exchange.backward(loss, last=exchanges)

    return slowest(median_seconds(step, context.device, ROUNDS), context.device)


def _bandwidth(device: torch.device, size: int) -> float:
    """Return the bytes a second of a rank's link in an all-reduce of so many bytes."""
    ranks, tensor = dist.get_world_size(), torch.zeros(max(1, size // 4), device=device)
    taken = slowest(median_seconds(lambda: dist.all_reduce(tensor), device, ROUNDS), device)
    return 2 * (ranks - 1) / ranks * size / taken if ranks > 1 else float("inf")
