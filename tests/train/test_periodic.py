"""Local SGD and DiLoCo: what becomes of replicas that trained apart, against the papers' rules written out."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from raysr.train.periodic import PeriodicAveraging
from tests.train.ranks import on_ranks

EVERY = 3


def moved(rank: int, step: int) -> Tensor:
    return torch.randn(5, generator=torch.Generator().manual_seed(100 * step + rank))


def trained_apart(options: dict[str, Any], rounds: int, resume_at: int | None = None) -> Any:
    model = nn.Linear(5, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    meeting, trail = PeriodicAveraging(model, EVERY, **options), []
    for step in range(rounds * EVERY):
        if step == resume_at:
            state = meeting.state_dict()
            meeting = PeriodicAveraging(model, EVERY, **options)
            meeting.load_state_dict(state)
        with torch.no_grad():
            model.weight.add_(moved(dist.get_rank(), step))
        met = meeting()
        trail.append((met, model.weight.detach().flatten().clone()))
    return trail, meeting.traffic.payload


def test_local_sgd_takes_the_mean_of_the_weights() -> None:
    results = on_ranks(2, trained_apart, {}, 2)
    weights = [torch.ones(5)] * 2
    for step in range(2 * EVERY):
        weights = [w + moved(rank, step) for rank, w in enumerate(weights)]
        if met := (step + 1) % EVERY == 0:
            weights = [(weights[0] + weights[1]) / 2] * 2
        for rank, (trail, payload) in enumerate(results):
            assert trail[step][0] is met
            torch.testing.assert_close(trail[step][1], weights[rank], atol=1e-5, rtol=1e-5)
            assert payload == 2 * 5 * 4
        if met:
            assert torch.equal(results[0][0][step][1], results[1][0][step][1])


@pytest.mark.parametrize("resume_at", [None, 4, 6])
def test_diloco_takes_nesterovs_step_along_what_all_have_moved(resume_at: int | None) -> None:
    options = {"lr": 0.7, "momentum": 0.9}
    results = on_ranks(2, trained_apart, options, 3, resume_at)
    outer = torch.ones(5, requires_grad=True)
    sgd = torch.optim.SGD([outer], nesterov=True, **options)
    for number in range(3):
        steps = range(number * EVERY, (number + 1) * EVERY)
        outer.grad = -sum(moved(rank, step) for rank in range(2) for step in steps) / 2
        sgd.step()
        for trail, _ in results:
            met, weights = trail[(number + 1) * EVERY - 1]
            assert met
            torch.testing.assert_close(weights, outer.detach(), atol=1e-5, rtol=1e-5)


def test_on_a_narrower_wire_replicas_are_the_same_too() -> None:
    [(first, sent), (second, _)] = on_ranks(2, trained_apart, {"wire": torch.bfloat16}, 2)
    assert torch.equal(first[-1][1], second[-1][1])
    assert sent == 2 * 5 * 2
