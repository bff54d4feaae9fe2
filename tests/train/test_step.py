"""Optimiser steps on real ranks: what is not finite anywhere moves nobody, and passes over parts add up."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from raysr.config import Spec
from raysr.errors import RunError
from raysr.train.exchange.base import EXCHANGES, Exchange, ExchangeContext, Loss
from raysr.train.hooks.blocks import CODECS, CompressedMean
from raysr.train.onebit_adam import OneBitAdam
from raysr.train.step import MOST_SKIPPED, Stepper
from tests.train.ranks import on_ranks

STEPS, BAD = 9, 5
KINDS: dict[str, dict[str, Any]] = {
    "none": {},
    "bf16": {},
    "powersgd": {"rank": 1, "start": 2},
    "8bit": {"start": 2},
    "local_sgd": {"start": 2, "every": 3},
}


def student() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 4))


def stepper(kind: str, optimiser: str = "adamw", scaler: torch.amp.GradScaler | None = None) -> Stepper:
    model = student()
    context = ExchangeContext(model, torch.device("cpu"))
    exchange: Exchange = EXCHANGES.build(Spec(kind=kind, **KINDS[kind]), context)
    chosen: Optimizer
    if optimiser == "adamw":
        chosen = AdamW(model.parameters(), lr=1e-2)
    else:
        chosen = OneBitAdam(model.parameters(), CompressedMean(CODECS["1bit"]()), freeze_step=3, lr=1e-2)
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
    return Stepper(model, exchange, chosen, lambda step: 1e-2 / (1 + step), scaler, clip=5.0)


def loss_of(step: int, factor: float = 1.0, part: slice = slice(None)) -> Loss:
    draws = torch.Generator().manual_seed(1000 * step + dist.get_rank())
    rows = torch.randn(6, 12, generator=draws)[part]
    return lambda module: factor * (module(rows) - rows[:, :4].sin()).square().sum()


def weights(of: Stepper) -> Tensor:
    return torch.cat([p.detach().flatten() for p in of.model.parameters()])


def with_a_bad_step(kind: str, optimiser: str) -> tuple[list[Tensor], int, list[float]]:
    training, trail, rates = stepper(kind, optimiser), [], []
    for step in range(STEPS):
        bad = step == BAD and dist.get_rank() == 1
        training([loss_of(step, float("nan") if bad else 1.0)], last=step == STEPS - 1)
        rates.append(training.optimiser.param_groups[0]["lr"])
        trail.append(weights(training))
    return trail, training.skipped, rates


@pytest.mark.parametrize(
    ("kind", "optimiser"),
    [("none", "adamw"), ("bf16", "adamw"), ("powersgd", "adamw"), ("8bit", "adamw"), ("none", "onebit_adam")],
)
def test_a_step_that_is_not_finite_on_one_rank_is_taken_on_none(kind: str, optimiser: str) -> None:
    (first, skipped, rates), (second, skipped_too, rates_too) = on_ranks(2, with_a_bad_step, kind, optimiser)
    assert skipped == skipped_too == 1
    assert rates == rates_too == [1e-2 / (1 + step) for step in range(STEPS)]
    for step, (a, b) in enumerate(zip(first, second, strict=True)):
        assert torch.equal(a, b)
        assert a.isfinite().all()
        assert torch.equal(a, first[step - 1]) is (step == BAD)


def test_a_replica_that_trains_apart_skips_alone_and_meets_the_others() -> None:
    (first, skipped, rates), (second, skipped_too, rates_too) = on_ranks(
        2, with_a_bad_step, "local_sgd", "adamw"
    )
    assert (skipped, skipped_too) == (0, 1)
    assert rates == rates_too == [1e-2 / (1 + step) for step in range(STEPS)]
    assert torch.equal(second[BAD], second[BAD - 1])
    assert not torch.equal(first[BAD], second[BAD])
    assert torch.equal(first[-1], second[-1])


def overflowing(kind: str) -> tuple[Tensor, int, float]:
    """Train on losses that are finite, but not when they are scaled, until the scale has come down."""
    training = stepper(kind, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**126))
    for step in range(30):
        training([loss_of(step)])
    return weights(training), training.skipped, training.scaler.get_scale()


@pytest.mark.parametrize("kind", ["none", "powersgd", "8bit"])
def test_a_scale_that_is_too_large_comes_down_alike_on_all_ranks(kind: str) -> None:
    first, second = on_ranks(2, overflowing, kind)
    assert torch.equal(first[0], second[0])
    assert first[1:] == second[1:]
    assert 0 < first[1] < 20
    assert first[2] < 2.0**126
    assert not torch.equal(first[0], torch.cat([p.flatten() for p in student().parameters()]))


def in_parts(parts: int) -> Tensor:
    training = stepper("none")
    for step in range(4):
        training([loss_of(step, part=slice(place, None, parts)) for place in range(parts)])
    return weights(training)


def test_parts_of_a_batch_make_the_step_of_the_whole() -> None:
    [whole, _], [parts, _] = on_ranks(2, in_parts, 1), on_ranks(2, in_parts, 3)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-4)


def never_finite() -> tuple[str, int]:
    training = stepper("none")
    for step in range(MOST_SKIPPED + 1):
        try:
            training([loss_of(step, float("nan"))])
        except RunError as error:
            return str(error), step
    return "", -1


def test_a_training_that_never_takes_a_step_says_so_on_all_ranks() -> None:
    for message, step in on_ranks(2, never_finite):
        assert "not finite" in message
        assert "optimiser.lr" in message
        assert step == MOST_SKIPPED - 1
