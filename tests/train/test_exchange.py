"""Exchanges on real ranks: the gradients and weights they promise, replicas that stay one, and exact resumes."""

import copy
import time
from typing import Any, get_args

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from raysr.config import Spec
from raysr.train.exchange.auto import choose
from raysr.train.exchange.base import EXCHANGES, Exchange, ExchangeContext
from raysr.train.network.recommend import SETTINGS, AsOne
from tests.train.ranks import on_ranks

CPU = torch.device("cpu")
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "fp16": {},
    "bf16": {},
    "powersgd": {"rank": 1, "start": 2},
    "8bit": {"start": 2},
    "1bit": {"start": 2},
    "local_sgd": {"start": 2, "every": 3},
    "diloco": {"start": 2, "every": 3, "wire": "bf16"},
}
GRADIENTS = ("none", "fp16", "bf16", "powersgd", "8bit", "1bit")
ACCURACIES = get_args(AsOne)


PASSES = ([1, 1], [3, 3], [1, 3])
AT = (1, 4)


def everything() -> dict[Any, Any]:
    """Return what one rank finds in all that the tests below ask; ranks are slow to start."""
    found: dict[Any, Any] = {("trained", kind): trained(kind) for kind in OPTIONS}
    found |= {("resumed", kind, at): resumed(kind, at) for kind in OPTIONS for at in AT}
    found |= {
        ("accumulated", kind, *passes): accumulated(kind, passes) for kind in GRADIENTS for passes in PASSES
    }
    found |= {("overflowing", kind): overflowing(kind) for kind in GRADIENTS}
    found |= {("late", kind): late(kind) for kind in ("none", "powersgd")}
    found |= {("sent", kind): sent(kind) for kind in ("none", "bf16", "diloco", "powersgd")}
    found |= {("chosen", accuracy): chosen(accuracy) for accuracy in ACCURACIES}
    return found


@pytest.fixture(scope="module")
def ranks() -> list[dict[Any, Any]]:
    return on_ranks(2, everything)


def student() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 4))


def inputs(rank: int, step: int, count: int = 6) -> Tensor:
    return torch.randn(count, 12, generator=torch.Generator().manual_seed(1000 * step + rank))


def loss_of(rows: Tensor, factor: float = 1.0) -> Any:
    return lambda module: factor * (module(rows) - rows[:, :4].sin()).square().sum()


def built(kind: str, model: nn.Module, **changes: Any) -> Exchange:
    exchange: Exchange = EXCHANGES.build(
        Spec(kind=kind, **{**OPTIONS[kind], **changes}), ExchangeContext(model, CPU, seed=3)
    )
    return exchange


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Trained:
    """A small training by one exchange, as the loop drives it."""

    def __init__(self, kind: str) -> None:
        self.model = student()
        self.exchange = built(kind, self.model)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-2)

    def steps(self, first: int, end: int, last: int) -> list[Tensor]:
        trail = []
        for step in range(first, end):
            self.optimiser.zero_grad()
            self.exchange.backward(loss_of(inputs(dist.get_rank(), step)))
            self.optimiser.step()
            self.exchange.stepped(last=step == last)
            trail.append(weights(self.model))
        return trail

    def state(self) -> Any:
        parts = self.model.state_dict(), self.optimiser.state_dict(), self.exchange.state_dict()
        return copy.deepcopy(parts)

    def load(self, state: Any) -> None:
        self.model.load_state_dict(state[0])
        self.optimiser.load_state_dict(state[1])
        self.exchange.load_state_dict(state[2])


def trained(kind: str) -> tuple[list[Tensor], bool]:
    training = Trained(kind)
    return training.steps(0, 9, last=8), training.exchange.diverges


@pytest.mark.parametrize("kind", OPTIONS)
def test_replicas_are_one_bit_for_bit_after_every_step_in_which_they_meet(
    ranks: list[dict[Any, Any]], kind: str
) -> None:
    (first, diverges), (second, _) = (found["trained", kind] for found in ranks)
    met = [torch.equal(a, b) for a, b in zip(first, second, strict=True)]
    apart = {"local_sgd", "diloco"}
    #        together  a round          a round          the last step
    wanted = [True] * 2 + [False, False, True] * 2 + [True] if kind in apart else [True] * 9
    assert met == wanted
    assert diverges is (kind in apart)


def resumed(kind: str, at: int) -> tuple[Tensor, Tensor]:
    undisturbed = Trained(kind)
    undisturbed.steps(0, at, last=8)
    state = undisturbed.state()
    wanted = undisturbed.steps(at, 9, last=8)[-1]
    again = Trained(kind)
    again.load(state)
    return wanted, again.steps(at, 9, last=8)[-1]


@pytest.mark.parametrize("at", AT)
@pytest.mark.parametrize("kind", OPTIONS)
def test_what_is_resumed_ends_bit_for_bit_where_the_undisturbed_training_does(
    ranks: list[dict[Any, Any]], kind: str, at: int
) -> None:
    for found in ranks:
        wanted, again = found["resumed", kind, at]
        assert torch.equal(again, wanted)


def accumulated(kind: str, passes: list[int]) -> Tensor:
    """Return the gradients of a step in which this rank's batch goes in so many passes."""
    model = student()
    exchange = built(kind, model)
    rows = inputs(dist.get_rank(), 0)
    parts = rows.chunk(passes[dist.get_rank()])
    for part in parts:
        exchange.backward(loss_of(part), last=part is parts[-1])
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize(("kind", "tolerance"), [("none", 1e-5), ("bf16", 2e-2), ("powersgd", 1e-5)])
@pytest.mark.parametrize("passes", PASSES)
def test_passes_add_up_to_the_mean_of_all_ranks_however_many_each_takes(
    ranks: list[dict[Any, Any]], kind: str, tolerance: float, passes: list[int]
) -> None:
    model = student()
    (sum(loss_of(inputs(rank, 0))(model) for rank in range(2)) / 2).backward()
    wanted = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    for found in (of["accumulated", kind, *passes] for of in ranks):
        assert (found - wanted).norm() <= tolerance * wanted.norm()


def overflowing(kind: str) -> list[Tensor]:
    """Return gradients of a step that is not finite on one rank alone, and of a good one after it."""
    model = student()
    exchange = built(kind, model, **({"start": 0} if "start" in OPTIONS[kind] else {}))
    found = []
    for step in (0, 1):
        model.zero_grad()
        factor = float("inf") if step == 0 and dist.get_rank() == 1 else 1.0
        exchange.backward(loss_of(inputs(dist.get_rank(), step), factor), scale=4.0)
        exchange.stepped()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    return found


@pytest.mark.parametrize("kind", GRADIENTS)
def test_gradients_that_are_not_finite_on_one_rank_are_so_on_all_and_leave_no_trace(
    ranks: list[dict[Any, Any]], kind: str
) -> None:
    first, second = (found["overflowing", kind] for found in ranks)
    for bad, good in (first, second):
        assert not bad.isfinite().all()
        assert good.isfinite().all()
    assert torch.equal(first[1], second[1])


def late(kind: str) -> float:
    exchange = built(kind, student())
    rows = inputs(dist.get_rank(), 0)

    def loss(module: nn.Module) -> Tensor:
        time.sleep(0.5 * dist.get_rank())
        return loss_of(rows)(module)

    for _ in range(2):  # in its second forward pass DDP agrees on buckets, for which ranks wait as well
        exchange.backward(loss_of(rows))
    before = exchange.waited
    exchange.backward(loss)
    return exchange.waited - before


@pytest.mark.parametrize("kind", ["none", "powersgd"])
def test_time_waited_is_that_of_the_rank_that_waits(ranks: list[dict[Any, Any]], kind: str) -> None:
    early, late_one = (found["late", kind] for found in ranks)
    assert early > 0.4 > late_one


def sent(kind: str) -> tuple[int, float]:
    training = Trained(kind)
    training.steps(0, 9, last=8)
    return training.exchange.traffic.payload, training.exchange.traffic.wire


def test_bytes_sent_are_those_of_theory(ranks: list[dict[Any, Any]]) -> None:
    numbers = sum(p.numel() for p in student().parameters())
    payload, wire = ranks[0]["sent", "none"]
    assert payload == 9 * 4 * numbers == wire  # 2 (n - 1) / n is 1 for two
    payload, _ = ranks[0]["sent", "bf16"]
    assert payload == 9 * 2 * numbers
    payload, _ = ranks[0]["sent", "diloco"]
    assert payload == 2 * 4 * numbers + 3 * 2 * numbers  # two steps together, then three meetings in bfloat16
    payload, _ = ranks[0]["sent", "powersgd"]
    vectors = 24 + 4
    assert payload == 4 * (2 * numbers + 7 * (vectors + (24 + 12) + (4 + 24)))


def chosen(accuracy: Any) -> Any:
    model = student()
    before = copy.deepcopy(model.state_dict())
    found = choose(ExchangeContext(model, CPU), loss_of(inputs(dist.get_rank(), 0)), accuracy)
    untouched = all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return found, untouched and all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("accuracy", ACCURACIES)
def test_auto_agrees_on_what_was_fastest_and_leaves_the_student_alone(
    ranks: list[dict[Any, Any]], accuracy: Any
) -> None:
    (first, untouched), (second, _) = (found["chosen", accuracy] for found in ranks)
    assert first == second
    assert untouched
    allowed = {"exact": 1, "rounded": 2, "compressed": 6}[accuracy]
    assert len(first.seconds.keys() | first.at_least.keys()) == allowed
    fastest = min(first.seconds.values())
    names = [s.name for s in SETTINGS if s.options == {"kind": first.spec.kind, **first.spec.options}]
    assert first.seconds[names[0]] <= 1.05 * fastest
    assert all(seconds > fastest for seconds in first.at_least.values())
    assert str(first).startswith(first.spec.kind)
