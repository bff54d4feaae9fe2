"""PowerSGD against its definition: real ranks over gloo, and linear algebra that is known."""

import copy
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raysr.train.checkpoint import on_cpu
from raysr.train.hooks.layout import gathering
from raysr.train.hooks.powersgd import PowerSGD
from tests.train.ranks import on_ranks

SHAPES = {"wide": (24, 40), "conv": (16, 8, 3, 3), "bias": (24,), "small": (3, 2)}


def drawn(seed: int, rank: int | None = None, low_rank: int | None = None) -> dict[str, Tensor]:
    """Return gradients, this rank's own or the same on all; matrices of a low rank, the same columns on all."""
    own = torch.Generator().manual_seed(1000 * seed + (dist.get_rank() if rank is None else rank))
    common = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in SHAPES.items():
        if low_rank is None or len(shape) == 1:
            found[name] = torch.randn(shape, generator=own)
        else:
            rows = shape[0]
            columns = torch.Size(shape).numel() // rows
            left = torch.randn(rows, low_rank, generator=common)
            found[name] = (left @ torch.randn(low_rank, columns, generator=own)).view(shape)
    return found


def mean_of(seed: int, ranks: int, low_rank: int | None = None) -> dict[str, Tensor]:
    everyone = [drawn(seed, rank, low_rank) for rank in range(ranks)]
    return {name: torch.stack([g[name] for g in everyone]).mean(0) for name in SHAPES}


def near(found: Tensor, wanted: Tensor) -> bool:
    """Whether two are alike but for rounding; a basis of a few draws may be ill-conditioned."""
    return bool((found - wanted).norm() <= 1e-3 * wanted.norm())


def reduced(gradients: dict[str, Tensor], hook: PowerSGD) -> dict[str, Tensor]:
    hook(gradients)
    return gradients


def several_steps(options: dict[str, Any], seeds: list[int], low_rank: int | None = None) -> Any:
    hook = PowerSGD(**options)
    outputs = [reduced(drawn(seed, low_rank=low_rank), hook) for seed in seeds]
    return outputs, hook.state_dict(), (hook.traffic.payload, hook.traffic.wire)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_mean_of_its_rank_is_found_exactly_and_vectors_always_are(ranks: int) -> None:
    results = on_ranks(ranks, several_steps, {"rank": 2}, [5], 2)
    mean = mean_of(5, ranks, 2)
    for outputs, state, _ in results:
        assert set(state["factors"]) == {"wide", "conv"}  # the small one gains nothing
        for name in SHAPES:
            assert near(outputs[0][name], mean[name])
            assert torch.equal(outputs[0][name], results[0][0][0][name])


@pytest.mark.parametrize("ranks", [2, 3])
def test_nothing_is_lost_but_what_the_errors_still_hold(ranks: int) -> None:
    seeds = [1, 2, 3, 4, 5]
    results = on_ranks(ranks, several_steps, {"rank": 1, "start": 1}, seeds)
    for name in ("wide", "conv"):
        given = sum(mean_of(seed, ranks)[name] for seed in seeds)
        passed = sum(output[name] for output in results[0][0])
        held = torch.stack([state["errors"][name] for _, state, _ in results]).mean(0).view(SHAPES[name])
        torch.testing.assert_close(passed + held, given, atol=1e-4, rtol=1e-4)
        assert held.norm() > 0.1 * given.norm()  # there was something to lose
    first = mean_of(1, ranks)
    for name in SHAPES:  # before `start` all goes as it is
        torch.testing.assert_close(results[0][0][0][name], first[name])


def test_warm_starts_iterate_to_the_best_approximation() -> None:
    [(outputs, _, _)] = on_ranks(1, several_steps, {"rank": 2, "error_feedback": False}, [7] * 60)
    matrix = drawn(7, rank=0)["wide"]
    u, s, v = torch.linalg.svd(matrix)
    best = u[:, :2] * s[:2] @ v[:2]
    torch.testing.assert_close(outputs[-1]["wide"], best, atol=5e-2, rtol=0)
    assert (outputs[0]["wide"] - best).norm() > 5 * (outputs[-1]["wide"] - best).norm()


def overflowing(infinite_rank: int) -> Any:
    hook, other = PowerSGD(rank=1), PowerSGD(rank=1)
    for one in (hook, other):
        one(drawn(1))
    before = copy.deepcopy(hook.state_dict())
    gradients = drawn(2)
    if dist.get_rank() == infinite_rank:
        gradients["conv"][0, 0, 0, 0] = float("inf")
    hook(gradients)
    after = hook.state_dict()
    same = after["step"] == before["step"] and all(
        torch.equal(after[kind][name], before[kind][name])
        for kind in ("errors", "factors")
        for name in before[kind]
    )
    return gradients, same, reduced(drawn(3), hook), reduced(drawn(3), other)


def test_gradients_that_overflow_on_one_rank_are_nan_on_all_and_leave_no_trace() -> None:
    for gradients, same, continued, without in on_ranks(2, overflowing, 1):
        assert all(g.isnan().all() for g in gradients.values())
        assert same
        assert all(torch.equal(continued[name], without[name]) for name in SHAPES)


def scaled(scales: list[float]) -> Any:
    hook, outputs = PowerSGD(rank=1), []
    for seed, scale in enumerate(scales):
        hook.scale = scale
        gradients = {name: g * scale for name, g in drawn(seed).items()}
        hook(gradients)
        outputs.append({name: g / scale for name, g in gradients.items()})
    return outputs


def test_errors_know_the_scale_of_the_loss() -> None:
    [plain, *_], [other, *_] = (
        on_ranks(2, scaled, [1.0] * 4),
        on_ranks(2, scaled, [1024.0, 2048.0, 512.0, 1.0]),
    )
    for a, b in zip(plain, other, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in SHAPES)  # powers of two round nothing


def pausing() -> Any:
    hook = PowerSGD(rank=2, error_feedback=False)
    hook(drawn(1, low_rank=2))
    nothing = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    hook(nothing)
    return nothing, reduced(drawn(2, low_rank=2), hook)


def test_a_parameter_that_had_no_gradient_comes_back() -> None:
    for nothing, after in on_ranks(2, pausing):
        assert not any(g.any() for g in nothing.values())
        mean = mean_of(2, 2, 2)
        for name in SHAPES:
            assert near(after[name], mean[name])


def test_it_sends_what_theory_says_and_half_of_it_in_bf16() -> None:
    sizes = {}
    for wire in (torch.float32, torch.bfloat16):
        results = on_ranks(2, several_steps, {"rank": 2, "wire": wire}, [1, 2])
        outputs, _, (payload, ring) = results[0]
        sizes[wire] = payload
        assert ring == payload  # 2 (n - 1) / n of it for two ranks
        for other, _, _ in results:
            assert all(torch.equal(a[n], b[n]) for a, b in zip(outputs, other, strict=True) for n in SHAPES)
    numbers = 2 * (24 + 40) + 2 * (16 + 72) + 24 + 6
    assert sizes == {torch.float32: 2 * 4 * numbers, torch.bfloat16: 2 * 2 * numbers}


def under_ddp(caps: list[float]) -> Any:
    """Train under DDP with one cap of its buckets after the other, what is kept handed over; return the weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 60), nn.Tanh(), nn.Linear(60, 50), nn.Tanh(), nn.Linear(50, 4))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    state = None
    for number, cap in enumerate(caps):
        hook = PowerSGD(rank=1)
        if state is not None:
            hook.load_state_dict(copy.deepcopy(state))
        ddp = DistributedDataParallel(model, bucket_cap_mb=cap, gradient_as_bucket_view=True)
        ddp.register_comm_hook(None, gathering(model, hook))
        for step in range(4):
            draws = torch.Generator().manual_seed(100 * number + 10 * step + dist.get_rank())
            optimiser.zero_grad(set_to_none=True)
            ddp(torch.randn(8, 40, generator=draws)).square().mean().backward()
            optimiser.step()
        state = hook.state_dict()
    return {name: p.detach() for name, p in model.named_parameters()}


def test_any_buckets_will_do_also_others_after_a_resume_and_replicas_stay_equal() -> None:
    one, many, changed = (
        on_ranks(2, under_ddp, caps) for caps in ([25.0, 25.0], [0.001, 0.001], [0.001, 25.0])
    )
    for name, weight in one[0].items():
        for run in (one, many, changed):
            assert torch.equal(run[0][name], run[1][name]), name
            torch.testing.assert_close(run[0][name], weight, atol=1e-6, rtol=1e-5)


def went_on_and_was_read_back() -> list[bool]:
    """Return for each rank of an approximation whether one that was read back sends the same bits."""
    same = []
    for rank in (1, 2, 3):
        shapes = {"a": (31, 65), "b": (33, 49), "c": (57, 127), "d": (29, 9, 7), "e": (5,)}
        going, read = PowerSGD(rank=rank), PowerSGD(rank=rank)
        for step in range(6):
            draws = torch.Generator().manual_seed(step)
            gradients = {name: torch.randn(shape, generator=draws) for name, shape in shapes.items()}
            if step == 3:
                read.load_state_dict(on_cpu(going.state_dict()))
            again = {name: gradient.clone() for name, gradient in gradients.items()}
            going(gradients)
            if step >= 3:
                read(again)
                same.append(all(torch.equal(gradients[name], again[name]) for name in shapes))
    return same


def test_what_is_read_from_a_checkpoint_goes_on_bit_for_bit_wherever_it_lies_in_memory() -> None:
    [same] = on_ranks(1, went_on_and_was_read_back)
    assert same == 9 * [True]
