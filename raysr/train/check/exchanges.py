"""Every way in which replicas stay one, in a group of one rank: by NCCL on a GPU, by gloo on a CPU.

A rank by itself should train as if there were no exchange, but for what it rounds off or compresses; and what is
compressed comes later, so that after a few steps most has come.
"""

import gc
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from raysr.config import Spec
from raysr.train.check.bench import Bench, Learning
from raysr.train.check.finding import Finding, faults, largest
from raysr.train.exchange.alone import Alone
from raysr.train.exchange.base import EXCHANGES, Exchange, ExchangeContext
from raysr.train.hooks.blocks import CODECS, CompressedMean
from raysr.train.loss import Objective
from raysr.train.onebit_adam import OneBitAdam
from raysr.train.precision import choose
from raysr.train.step import Stepper

LR = 1e-4
"""Small, so that gradients stay nearly the same from step to step."""
STEPS = 8
FREEZE = 20
ADAM_APART, NEAR = 1e-2, 0.25


@dataclass(frozen=True)
class Expected:
    """What is to come of an exchange.

    Attributes:
        apart: the most that weights may be off, as a part of their way.
        options: of the exchange.
        steps: that are taken.
        faster: how many times further the weights go than without an exchange.
    """

    apart: float
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: int = STEPS
    faster: float = 1.0


EXPECTED: dict[str, Expected] = {
    "none": Expected(1e-3),
    "fp16": Expected(2e-3),
    "bf16": Expected(1e-2),
    "powersgd": Expected(0.2, {"start": 0}),
    "8bit": Expected(1e-2, {"start": 0}),
    "1bit": Expected(0.6, {"start": 0}),
    "local_sgd": Expected(1e-3, {"start": 0, "every": 1}),
    # a first outer step: 0.7 of the way, and 0.9 of that once more by Nesterov's momentum
    "diloco": Expected(1e-3, {"start": 0, "every": 1}, steps=1, faster=0.7 * (1 + 0.9)),
}
"""By ``comm.kind``."""


def check_exchanges(bench: Bench) -> Iterator[Finding]:
    """Take steps by every exchange and compare where weights go with where they go without one."""
    with group_of_one(bench.device):
        alone = trail_alone(bench)
        for kind, expected in EXPECTED.items():
            yield exchanged(bench, kind, expected, alone)
        yield _onebit_adam(bench)


@contextmanager
def group_of_one(device: torch.device) -> Iterator[None]:
    """Be the only rank of a process group."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        gc.collect()  # DistributedDataParallel holds the group in circles
        dist.destroy_process_group()


def trail_alone(bench: Bench) -> list[Tensor]:
    """Return how far weights have come after each step without an exchange, (N,) float64."""
    return _trail(bench, STEPS, lambda model: (Alone(model), SGD(model.parameters(), lr=LR)))


def exchanged(bench: Bench, kind: str, expected: Expected, alone: list[Tensor]) -> Finding:
    """Say how far an exchange leads from where weights go ``alone``."""
    made: list[Exchange] = []

    def make(model: nn.Module) -> tuple[Exchange, Optimizer]:
        context = ExchangeContext(model, bench.device)
        made.append(EXCHANGES.build(Spec(kind=kind, **expected.options), context))
        return made[0], SGD(model.parameters(), lr=LR)

    trail = _trail(bench, expected.steps, make)
    way = alone[expected.steps - 1] * expected.faster
    apart = _apart(trail[-1], way)
    payload, waited = made[0].traffic.payload / expected.steps, made[0].waited
    said = f"{apart:.1e} apart at step {expected.steps}, {payload / 1e6:.3f} MB a step"
    found = faults(
        weights_are_not_finite=not bool(trail[-1].isfinite().all()),
        weights_go_elsewhere=not apart <= expected.apart,
        nothing_was_sent=payload == 0,
        waiting_was_not_measured=not 0 <= waited < float("inf"),
    )
    return Finding(f"exchange {kind}", said, {"apart": apart, "payload_bytes": payload}, found)


def _onebit_adam(bench: Bench) -> Finding:
    """Compare the losses of 1-bit Adam with those of AdamW, which it is at first."""
    mean, precision = CompressedMean(CODECS["1bit"]()), choose("fp32", bench.device)
    losses = []
    for compresses in (False, True):
        model = bench.fresh().to(bench.device)
        optimiser: Optimizer = (
            OneBitAdam(model.parameters(), mean, FREEZE)
            if compresses
            else AdamW(model.parameters(), weight_decay=0)
        )
        learning = Learning(model, bench.batch, precision, optimiser)
        losses.append([learning.step() for _ in range(2 * FREEZE)])
    plain, ours = losses
    warm = largest(abs(a / b - 1) for a, b in zip(ours[:FREEZE], plain[:FREEZE], strict=True))
    fallen = (ours[0] - ours[-1]) / (plain[0] - plain[-1])
    said = (
        f"loss {ours[0]:.1f} to {ours[-1]:.1f} in {2 * FREEZE} steps, by AdamW to {plain[-1]:.1f}; "
        f"{warm:.1e} from it in the first {FREEZE}, {mean.traffic.payload / FREEZE / 1e6:.3f} MB a step later"
    )
    found = faults(
        a_loss_is_not_finite=not all(map(math.isfinite, ours)),
        it_is_not_Adam_at_first=not warm <= ADAM_APART,
        the_loss_falls_otherwise=not abs(fallen - 1) <= NEAR,
        nothing_was_sent=mean.traffic.payload == 0,
    )
    numbers = {"apart_at_first": warm, "fallen": fallen, "payload_bytes": mean.traffic.payload / FREEZE}
    return Finding("1-bit Adam", said, numbers, found)


def _trail(bench: Bench, steps: int, make: Callable[[nn.Module], tuple[Exchange, Optimizer]]) -> list[Tensor]:
    """Return how far the weights of a fresh student have come after each step, (N,) float64 on the CPU."""
    model = bench.fresh().to(bench.device)
    precision = choose("fp32", bench.device)
    objective = Objective(bench.device, precision, seed=0, rank=0, ranks=1)
    exchange, optimiser = make(model)
    stepper = Stepper(model, exchange, optimiser, lambda step: LR, precision.scaler, clip=float("inf"))
    begin, trail = _weights(model), []
    for step in range(steps):
        loss = objective.of(bench.batch, 1 / len(bench.batch.weights), 0)
        stepper([loss], last=step == steps - 1)
        trail.append(_weights(model) - begin)
    return trail


def _weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().cpu().double()


def _apart(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
