"""What gradients weigh, against what hooks count on real ranks; and which setting a link calls for."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from raysr.train.hooks.blocks import CODECS, CompressedMean
from raysr.train.hooks.powersgd import PowerSGD
from raysr.train.network.links import Links
from raysr.train.network.payload import (
    Payload,
    Shapes,
    in_blocks,
    like_a_transformer,
    low_rank,
    now_and_then,
    numbers,
    whole,
)
from raysr.train.network.recommend import SETTINGS, TOLERATED, recommend
from raysr.train.onebit_adam import OneBitAdam
from raysr.train.periodic import PeriodicAveraging
from tests.train.ranks import on_ranks

MODELS: list[Shapes] = [
    [(7,)],
    [(256,), (257,), (1, 1), (300, 200), (3, 900), (64, 32, 3, 3), (10, 10)],
    like_a_transformer(1e6)[:12],
]
SHARES = st.sampled_from(["exact", "rounded", "compressed", "apart"])


def counted(shapes: Shapes) -> dict[str, tuple[float, float]]:
    """Return payload and wire bytes, as hooks and optimisers count them, of a step of each setting."""
    found = {}
    gradients = {str(place): torch.randn(*shape) for place, shape in enumerate(shapes)}
    hooks: dict[str, Any] = {
        "none": PowerSGD(start=1),
        "bf16": PowerSGD(start=1, wire=torch.bfloat16),
        **{f"PowerSGD of rank {rank}": PowerSGD(rank=rank) for rank in (1, 2, 4)},
    }
    for name, hook in hooks.items():
        hook({key: gradient.clone() for key, gradient in gradients.items()})
        found[name] = hook.traffic.payload, hook.traffic.wire
    mean = CompressedMean(CODECS["8bit"]())
    mean(list(gradients.values()))
    found["8 bits"] = mean.traffic.payload, mean.traffic.wire
    parameters = [nn.Parameter(gradient) for gradient in gradients.values()]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    adam = OneBitAdam(parameters, CompressedMean(CODECS["1bit"]()), 1)
    for _ in range(2):
        adam.step()
    found["1-bit Adam"] = adam.mean.traffic.payload, adam.mean.traffic.wire
    averaging = PeriodicAveraging(nn.ParameterList(parameters), every=8)
    for _ in range(16):
        averaging()
    found["local SGD of 8 steps"] = averaging.traffic.payload / 16, averaging.traffic.wire / 16
    return found


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("model", range(len(MODELS)))
def test_payloads_are_to_the_byte_what_is_sent(model: int, ranks: int) -> None:
    shapes = MODELS[model]
    for found in on_ranks(ranks, counted, shapes):
        told = {s.name: s.payload(shapes, ranks) for s in SETTINGS}
        assert set(told) - set(found) == {"local SGD of 32 steps"}
        for name, (payload, wire) in found.items():
            assert told[name].payload == payload
            assert told[name].wire == pytest.approx(wire)


@given(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=4), min_size=1), st.integers(1, 9))
def test_less_is_sent_the_less_is_asked_of_accuracy(shapes: list[list[int]], ranks: int) -> None:
    plain = whole(shapes, ranks)
    assert whole(shapes, ranks, width=2).payload == plain.payload / 2
    assert now_and_then(shapes, ranks, 8).payload == plain.payload / 8
    ladder = [low_rank(shapes, ranks, rank).payload for rank in (1, 2, 4)]
    assert ladder == sorted(ladder)
    assert ladder[-1] <= plain.payload
    assert in_blocks(shapes, ranks, "1bit").wire <= in_blocks(shapes, ranks, "8bit").wire
    assert plain.wire == pytest.approx(2 * (ranks - 1) / ranks * 4 * numbers(shapes))


@given(st.floats(1e6, 1e9))
def test_shapes_of_a_model_of_which_only_the_size_is_known_have_that_size(size: float) -> None:
    shapes = like_a_transformer(size)
    layer = 4 * numbers(like_a_transformer(1))
    assert abs(4 * numbers(shapes) - size) <= max(layer / 2, layer - size)


def links(mbit: float, latency: float = 1e-3) -> Links:
    return Links(latency, mbit * 1e6 / 8, {(0, 1): mbit * 1e6 / 8})


@pytest.mark.parametrize(
    ("mbit", "accuracy", "wanted"),
    [
        (100_000, "compressed", "none"),
        (5_000, "exact", "none"),
        (1_800, "rounded", "bf16"),
        (100, "exact", "none"),
        (100, "rounded", "bf16"),
        (1_000, "compressed", "PowerSGD of rank 4"),
        (60, "compressed", "PowerSGD of rank 1"),
        (300, "apart", "PowerSGD of rank 4"),
        (1, "apart", "PowerSGD of rank 1"),
    ],
)
def test_the_slower_the_link_the_less_is_sent(mbit: float, accuracy: Any, wanted: str) -> None:
    found = recommend(links(mbit), 2, like_a_transformer(100e6), 0.3, accuracy, on_cpu=True)
    assert found.setting.name == wanted
    assert f"recommended: {wanted}; 101 MB of gradients take" in str(found)


@given(st.floats(1, 1e5), st.floats(0.01, 3), SHARES, st.integers(2, 16), st.booleans())
def test_nothing_more_accurate_would_wait_little_and_nothing_allowed_waits_less_where_none_does(
    mbit: float, backward: float, accuracy: Any, ranks: int, on_cpu: bool
) -> None:
    found = recommend(links(mbit), ranks, like_a_transformer(50e6), backward, accuracy, on_cpu)
    order = ["exact", "rounded", "compressed", "apart"]
    allowed = [
        p
        for p in found.predictions
        if order.index(p.setting.accuracy) <= order.index(accuracy) and not (on_cpu and p.setting.packs)
    ]
    place = [p.setting for p in allowed].index(found.setting)
    patience = TOLERATED * backward
    assert all(p.waiting > patience for p in allowed[:place])
    if allowed[place].waiting > patience:
        assert allowed[place].waiting == min(p.waiting for p in allowed)
    for p in allowed:
        payload: Payload = p.payload
        assert p.seconds == pytest.approx(payload.wire / (mbit * 1e6 / 8) + 1e-3 * payload.collectives)
        assert p.waiting == (max(0, p.seconds - backward) if p.setting.overlaps else p.seconds)


def test_where_every_message_takes_long_replicas_meet_less_often() -> None:
    found = recommend(links(10_000, latency=0.2), 2, like_a_transformer(100e6), 0.3, "apart")
    assert found.setting.name == "local SGD of 8 steps"


def test_without_a_backward_pass_one_is_taken_for_granted_and_said_to_be() -> None:
    found = recommend(links(1000), 2, like_a_transformer(100e6))
    assert found.setting == recommend(links(1000), 2, like_a_transformer(100e6), 0.2).setting
    assert str(found).endswith("the backward pass takes 0.2 s (taken for granted)")
    assert "at 1 Gbit/s" in str(found)


def test_one_rank_has_nothing_to_send() -> None:
    alone = Links(1e-6, float("inf"), {})
    assert recommend(alone, 1, like_a_transformer(1e9)).setting.name == "none"


def test_what_is_recommended_is_a_setting_of_training() -> None:
    from raysr.train.exchange.base import EXCHANGES

    kinds = {s.options["kind"] for s in SETTINGS if "kind" in s.options}
    assert kinds <= set(EXCHANGES.known)
