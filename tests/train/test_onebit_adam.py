"""1-bit Adam against Adam, the paper's algorithm written out for all workers at once, and a known minimum."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from raysr.train.hooks.blocks import BLOCK, CODECS, CompressedMean
from raysr.train.onebit_adam import MeanOfOne, OneBitAdam
from tests.train.ranks import on_ranks

LR, BETAS, EPS = 0.05, (0.8, 0.95), 1e-6


def target(rank: int) -> Tensor:
    """Return the minimum of a rank's quadratic; that of the mean of all is the mean of these."""
    return torch.randn(2 * BLOCK, generator=torch.Generator().manual_seed(rank)) + 1


CURVATURE = torch.logspace(-1, 1, 2 * BLOCK)


def gradient(weights: Tensor, rank: int, step: int) -> Tensor:
    """Return a noisy gradient of a rank's quadratic."""
    noise = torch.randn(len(weights), generator=torch.Generator().manual_seed(1000 * step + rank))
    return CURVATURE * (weights - target(rank)) + 0.1 * noise


def optimised(
    steps: int, freeze_step: int, lr: float = LR, decay: float = 0.0, resume_at: int | None = None
) -> Any:
    weights = torch.zeros(2 * BLOCK, requires_grad=True)

    def fresh() -> OneBitAdam:
        mean = CompressedMean(CODECS["1bit"]())
        return OneBitAdam([weights], mean, freeze_step, lr=lr, betas=BETAS, eps=EPS, weight_decay=decay)

    optimiser, trail = fresh(), []
    for step in range(steps):
        if step == resume_at:
            state, optimiser = optimiser.state_dict(), fresh()
            optimiser.load_state_dict(state)
        weights.grad = gradient(weights.detach(), dist.get_rank(), step)
        if not optimiser.compresses:
            dist.all_reduce(weights.grad)
            weights.grad /= dist.get_world_size()
        for group in optimiser.param_groups:
            group["lr"] = lr * (1 - step / steps)
        optimiser.step()
        trail.append(weights.detach().clone())
    return trail, optimiser.mean.traffic.payload


LARGEST = max(1.0, (1 - BETAS[0]) / (1 - BETAS[1]) ** 0.5)


def by_the_paper(steps: int, freeze_step: int, ranks: int) -> list[Tensor]:
    """Return the weights after each step: Algorithm 1, all workers in one process, a server for each half."""
    weights, momentum, variance = (torch.zeros(2 * BLOCK) for _ in range(3))
    errors, server_errors = [torch.zeros(2 * BLOCK) for _ in range(ranks)], torch.zeros(2 * BLOCK)

    def compress(v: Tensor) -> Tensor:
        blocks = v.view(-1, BLOCK)
        size = blocks.abs().mean(1, keepdim=True)
        return torch.where(blocks >= 0, size, -size).flatten()

    trail = []
    for step in range(steps):
        gradients = [gradient(weights, rank, step) for rank in range(ranks)]
        if step < freeze_step:
            mean = sum(gradients) / ranks
            momentum = BETAS[0] * momentum + (1 - BETAS[0]) * mean
            variance = BETAS[1] * variance + (1 - BETAS[1]) * mean**2
        else:
            sent = []
            for rank in range(ranks):
                own = BETAS[0] * momentum + (1 - BETAS[0]) * gradients[rank] + errors[rank]
                sent.append(compress(own))
                errors[rank] = own - sent[rank]
            averaged = sum(sent) / ranks + server_errors
            momentum = compress(averaged)
            server_errors = averaged - momentum
        unbiased = momentum / (1 - BETAS[0] ** (step + 1))
        deviation = (variance / (1 - BETAS[1] ** min(step + 1, freeze_step))).sqrt() + EPS
        moved = unbiased / deviation
        if step >= freeze_step:
            moved = moved.clamp(-LARGEST, LARGEST)
        weights = weights - LR * (1 - step / steps) * moved
        trail.append(weights)
    return trail


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_before_variances_are_frozen_it_is_adamw(decay: float) -> None:
    [(trail, sent), _] = on_ranks(2, optimised, 12, 12, LR, decay)
    assert sent == 0
    weights = torch.zeros(2 * BLOCK, requires_grad=True)
    adam = torch.optim.AdamW([weights], lr=LR, betas=BETAS, eps=EPS, weight_decay=decay)
    for step in range(12):
        weights.grad = (gradient(weights.detach(), 0, step) + gradient(weights.detach(), 1, step)) / 2
        adam.param_groups[0]["lr"] = LR * (1 - step / 12)
        adam.step()
        torch.testing.assert_close(trail[step], weights.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("ranks", [1, 2])
def test_afterwards_it_is_the_algorithm_of_the_paper(ranks: int) -> None:
    results = on_ranks(ranks, optimised, 14, 8)
    wanted = by_the_paper(14, 8, ranks)
    for step in range(14):
        torch.testing.assert_close(results[0][0][step], wanted[step], atol=1e-4, rtol=1e-3)
        assert all(torch.equal(trail[step], results[0][0][step]) for trail, _ in results)


def test_it_ends_where_the_mean_of_all_is_least_at_a_thirtieth_of_the_bytes() -> None:
    [(trail, sent), (other, _)] = on_ranks(2, optimised, 400, 60)
    minimum = (target(0) + target(1)) / 2
    assert torch.equal(trail[-1], other[-1])
    assert (trail[-1] - minimum).norm() < 0.15 * minimum.norm()
    assert (trail[59] - minimum).norm() > 2 * (trail[-1] - minimum).norm()
    assert sent < 1.5 * 340 * 2 * BLOCK * 4 / 28


def test_it_goes_on_exactly_from_its_state() -> None:
    straight, resumed = (on_ranks(2, optimised, 20, 8, LR, 0.01, at) for at in (None, 13))
    assert all(torch.equal(a, b) for a, b in zip(straight[1][0], resumed[1][0], strict=True))


def with_overflow() -> Any:
    weights = torch.zeros(BLOCK, requires_grad=True)
    optimiser = OneBitAdam([weights], CompressedMean(CODECS["1bit"]()), 1)
    trail = []
    for step in range(4):
        weights.grad = torch.full((BLOCK,), float("inf") if step == 2 and dist.get_rank() else 1.0)
        optimiser.step()
        trail.append(weights.detach().clone())
    return trail, optimiser.steps


def test_a_gradient_that_is_not_finite_on_one_rank_is_no_step_on_any() -> None:
    for trail, steps in on_ranks(2, with_overflow):
        assert torch.equal(trail[2], trail[1])
        assert not torch.equal(trail[3], trail[2])
        assert trail[3].isfinite().all()
        assert steps == 3


def test_without_a_step_of_adam_there_is_nothing_to_freeze() -> None:
    with pytest.raises(ValueError, match="freeze_step is 0"):
        OneBitAdam([torch.zeros(2, requires_grad=True)], CompressedMean(CODECS["1bit"]()), 0)


def alone(steps: int, freeze_step: int, bad: int | None = None) -> list[Tensor]:
    weights, trail = torch.zeros(2 * BLOCK, requires_grad=True), []
    optimiser = OneBitAdam([weights], MeanOfOne(), freeze_step, lr=LR, betas=BETAS, eps=EPS)
    for step in range(steps):
        weights.grad = gradient(weights.detach(), 0, step) * (float("nan") if step == bad else 1.0)
        optimiser.step()
        trail.append(weights.detach().clone())
    return trail


def test_a_rank_by_itself_freezes_variances_and_compresses_nothing() -> None:
    weights, momentum, variance = (torch.zeros(2 * BLOCK) for _ in range(3))
    for step, found in enumerate(alone(12, 5)):
        own = gradient(weights, 0, step)
        momentum = BETAS[0] * momentum + (1 - BETAS[0]) * own
        if step < 5:
            variance = BETAS[1] * variance + (1 - BETAS[1]) * own**2
        deviation = (variance / (1 - BETAS[1] ** min(step + 1, 5))).sqrt() + EPS
        moved = momentum / (1 - BETAS[0] ** (step + 1)) / deviation
        weights = weights - LR * (moved if step < 5 else moved.clamp(-LARGEST, LARGEST))
        torch.testing.assert_close(found, weights, atol=1e-5, rtol=1e-4)


def test_a_rank_by_itself_takes_no_step_by_what_is_not_finite() -> None:
    trail = alone(8, 5, bad=6)
    assert torch.equal(trail[6], trail[5])
    assert not torch.equal(trail[7], trail[6])
    assert trail[7].isfinite().all()


def gone_on(with_errors: bool) -> tuple[Tensor, Tensor, int]:
    """Return the momentum of a state, and what the next step, without gradients, makes of it: sent, or an error."""
    weights = torch.zeros(2 * BLOCK, requires_grad=True)
    first, second = (OneBitAdam([weights], CompressedMean(CODECS["1bit"]()), 1) for _ in range(2))
    for step in range(4):
        weights.grad = gradient(weights.detach(), 0, step)
        first.step()
    state = first.state_dict()
    second.load_state_dict(state if with_errors else {key: state[key] for key in state.keys() - {"mean"}})
    momentum = second.state[weights]["exp_avg"].clone()
    weights.grad = torch.zeros_like(weights)
    second.step()
    assert second.mean.error is not None
    return momentum, second.state[weights]["exp_avg"] + second.mean.error.flatten(), second.steps


def gone_on_either_way() -> Any:
    return gone_on(True), gone_on(False)


def test_without_the_errors_of_another_group_it_goes_on_from_its_momentum() -> None:
    [((momentum, moved, _), (momentum_too, moved_without, steps))] = on_ranks(1, gone_on_either_way)
    assert steps == 5
    assert torch.equal(momentum, momentum_too)
    torch.testing.assert_close(moved_without, 0.9 * momentum)
    assert not torch.allclose(moved, 0.9 * momentum)


def moves_of_a_weight_without_gradients() -> float:
    """Return the largest step of a weight that shares its block with others that have gradients."""
    weights = torch.zeros(BLOCK, requires_grad=True)
    optimiser = OneBitAdam([weights], CompressedMean(CODECS["1bit"]()), 3, lr=LR, betas=(0.9, 0.98))
    largest = 0.0
    for step in range(20):
        before = weights.detach().clone()
        weights.grad = torch.randn(BLOCK, generator=torch.Generator().manual_seed(step))
        weights.grad[7] = 0
        optimiser.step()
        largest = max(largest, float((weights.detach() - before)[7].abs()))
    return largest


def test_a_weight_that_had_no_gradients_does_not_run_off() -> None:
    [largest] = on_ranks(1, moves_of_a_weight_without_gradients)
    assert largest <= 1.001 * LR
