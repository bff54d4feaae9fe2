"""Gradients in 8 bits and 1 bit: the codecs by definition, and means of real ranks that lose nothing for good."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from raysr.train.hooks import bits
from raysr.train.hooks.blocks import BLOCK, CODECS, CompressedMean
from tests.train.ranks import on_ranks

SHAPES = [(700,), (3,), (40, 30), (256,)]


@given(st.integers(0, 1000), st.floats(1e-20, 1e20), st.integers(1, BLOCK))
def test_eight_bits_are_half_a_step_off_at_most(seed: int, size: float, filled: int) -> None:
    codec = CODECS["8bit"]()
    rows = size * torch.randn(3, BLOCK, generator=torch.Generator().manual_seed(seed))
    rows[:, filled:] = 0
    coded = codec.encode(rows, torch.tensor(3 * [filled]))
    assert coded.shape == (3, codec.row_bytes)
    step = rows.abs().amax(1, keepdim=True) / 127
    assert ((codec.decode(coded) - rows).abs() <= 0.501 * step).all()


@given(st.integers(0, 1000), st.integers(1, BLOCK))
def test_one_bit_is_a_sign_and_the_mean_size(seed: int, filled: int) -> None:
    codec = CODECS["1bit"]()
    rows = torch.randn(3, BLOCK, generator=torch.Generator().manual_seed(seed))
    rows[:, filled:] = 0
    coded = codec.encode(rows, torch.tensor(3 * [filled]))
    assert coded.shape == (3, BLOCK // 8 + 4)
    wanted = rows[:, :filled].sign() * rows[:, :filled].abs().mean(1, keepdim=True)
    torch.testing.assert_close(codec.decode(coded)[:, :filled], wanted)


@given(st.integers(0, 1000), st.integers(1, 9), st.lists(st.integers(0, BLOCK), min_size=9, max_size=9))
def test_what_is_compiled_is_what_torch_computes(seed: int, count: int, filled: list[int]) -> None:
    rows = torch.randn(count, BLOCK, generator=torch.Generator().manual_seed(seed))
    counts = torch.tensor(filled[:count])
    rows[torch.arange(BLOCK) >= counts[:, None]] = 0
    sizes, signs = bits.encode(rows, counts)
    expected_sizes, expected_signs = bits.encode_by_torch(rows, counts)
    torch.testing.assert_close(sizes, expected_sizes)
    assert torch.equal(signs, expected_signs)
    decoded = bits.decode_by_torch(sizes, signs)
    assert torch.equal(bits.decode(sizes, signs), decoded)
    room = torch.full_like(rows, float("nan"))
    assert bits.decode(sizes, signs, room) is room
    assert torch.equal(room, decoded)
    left = rows.clone()
    bits.subtract(left, sizes, signs)
    assert torch.equal(left, rows - decoded)


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 4))
def test_the_compiled_mean_is_that_of_torch(seed: int, count: int, ranks: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    rows = torch.randn(ranks * count, BLOCK, generator=draws)
    sizes, signs = bits.encode(rows, torch.full((ranks * count,), BLOCK))
    found = torch.full((count, BLOCK), float("nan"))
    bits.mean(sizes, signs, ranks, found)
    expected = bits.decode_by_torch(sizes, signs).view(ranks, count, BLOCK).mean(0)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", CODECS)
@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_what_is_not_finite_stays_so(kind: str, bad: float) -> None:
    codec, rows = CODECS[kind](), torch.ones(2, BLOCK)
    rows[0, 7] = bad
    back = codec.decode(codec.encode(rows, torch.tensor([BLOCK, BLOCK])))
    assert not back[0].isfinite().any()
    assert back[1].isfinite().all()


def vectors(seed: int, rank: int) -> list[Tensor]:
    draws = torch.Generator().manual_seed(100 * seed + rank)
    return [torch.randn(shape, generator=draws) * 10.0**place for place, shape in enumerate(SHAPES)]


def rounds(kind: str, seeds: list[int]) -> Any:
    mean = CompressedMean(CODECS[kind]())
    found = [[m.clone() for m in mean(vectors(seed, dist.get_rank())) or ()] for seed in seeds]
    return found, mean.state_dict(), mean.traffic.payload


def held_back(results: list[Any], ranks: int) -> Tensor:
    """Return what the errors of all ranks hold of the mean, as rows."""
    errors = torch.stack([state["error"] for _, state, _ in results]).mean(0)
    return errors + torch.cat([state["own_error"] for _, state, _ in results])


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("kind", CODECS)
def test_nothing_is_lost_but_what_the_errors_still_hold(kind: str, ranks: int) -> None:
    seeds = list(range(6))
    results = on_ranks(ranks, rounds, kind, seeds)
    held, first = held_back(results, ranks).flatten(), 0
    for place, shape in enumerate(SHAPES):
        size = torch.Size(shape).numel()
        given_ = sum(vectors(seed, rank)[place] for seed in seeds for rank in range(ranks)) / ranks
        passed = sum(found[place] for found in results[0][0])
        still = held[first : first + size].view(shape)
        torch.testing.assert_close(passed + still, given_, atol=1e-4 * 10**place, rtol=1e-4)
        filled = -(-size // BLOCK) * BLOCK
        assert not held[first + size : first + filled].any()  # padding holds nothing
        first += filled
    for found, _, _ in results:
        assert all(
            torch.equal(a, b)
            for one, other in zip(found, results[0][0], strict=True)
            for a, b in zip(one, other, strict=True)
        )


def test_eight_bits_are_near_the_mean_at_once() -> None:
    results = on_ranks(2, rounds, "8bit", [1])
    for place, found in enumerate(results[0][0][0]):
        mean = (vectors(1, 0)[place] + vectors(1, 1)[place]) / 2
        assert (found - mean).norm() < 0.02 * mean.norm()


def with_overflow(kind: str, infinite_rank: int) -> Any:
    mean, other = CompressedMean(CODECS[kind]()), CompressedMean(CODECS[kind]())
    mean(vectors(1, dist.get_rank()))
    other(vectors(1, dist.get_rank()))
    broken = vectors(2, dist.get_rank())
    if dist.get_rank() == infinite_rank:
        broken[2][0, 0] = float("inf")
    nothing = mean(broken)
    third = vectors(3, dist.get_rank())
    return nothing, mean(third), other(third)


@pytest.mark.parametrize("kind", CODECS)
def test_an_overflow_on_one_rank_is_no_mean_on_any_and_leaves_no_trace(kind: str) -> None:
    for nothing, continued, without in on_ranks(3, with_overflow, kind, 2):
        assert nothing is None
        assert all(torch.equal(a, b) for a, b in zip(continued, without, strict=True))


def test_the_bytes_are_those_of_theory() -> None:
    rows = 3 + 1 + 5 + 1  # blocks of the shapes, a multiple of two already
    for kind, row in (("8bit", BLOCK + 4), ("1bit", BLOCK // 8 + 4)):
        [(_, _, payload), _] = on_ranks(2, rounds, kind, [1])
        assert payload == rows * row + rows // 2 * row  # to all, and the own part's mean
