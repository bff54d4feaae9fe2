"""Mean and variance of a corpus, however it is cut and merged."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raysr.audio.cmvn import CmvnAccumulator
from raysr.errors import CorpusError


@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any),
    workers=st.integers(1, 3),
    offset=st.sampled_from([0.0, 1e4]),
)
def test_equals_the_statistics_of_all_frames_at_once(lengths: list[int], workers: int, offset: float) -> None:
    generator = torch.Generator().manual_seed(sum(lengths))
    blocks = [torch.randn(length, 5, generator=generator) * 3 + offset for length in lengths]
    parts = [CmvnAccumulator() for _ in range(workers)]
    for number, block in enumerate(blocks):
        parts[number % workers].add(block)
    for part in parts[1:]:
        parts[0].merge(part)
    mean, inverse_std = parts[0].finish()
    frames = torch.cat(blocks).double()
    variance = frames.var(dim=0, correction=0).clamp_min(1e-20)
    assert parts[0].frames == sum(lengths)
    torch.testing.assert_close(mean, frames.mean(dim=0).float())
    torch.testing.assert_close(inverse_std, variance.rsqrt().float(), rtol=1e-4, atol=0)


def test_a_constant_bin_stays_finite() -> None:
    accumulator = CmvnAccumulator()
    accumulator.add(torch.full((10, 4), -15.94))
    assert all(torch.isfinite(part).all() for part in accumulator.finish())


def test_nothing_counted_is_an_error_with_its_mend() -> None:
    accumulator = CmvnAccumulator()
    accumulator.add(torch.zeros(0, 80))
    accumulator.merge(CmvnAccumulator())
    with pytest.raises(CorpusError, match="labelled set"):
        accumulator.finish()
