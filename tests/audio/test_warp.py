"""Warping: nothing changes at width zero, lengths follow the tempo, and a tilted plane stays a plane."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.audio.warp import WarpConfig, warp


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_zero_widths_change_nothing():
    features = torch.randn(3, 50, 80)
    lengths = torch.tensor([50, 40, 1])
    out, out_lengths = warp(features, lengths, WarpConfig(tempo=0, frequency=0, level_db=0), _generator())
    torch.testing.assert_close(out_lengths, lengths)
    for i, length in enumerate(lengths):
        torch.testing.assert_close(out[i, :length], features[i, :length], rtol=1e-4, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 300))
def test_lengths_stay_within_the_tempo_range(seed, frames):
    lengths = torch.tensor([frames, max(1, frames // 2)])
    _, new = warp(torch.zeros(2, frames, 80), lengths, WarpConfig(tempo=0.1), _generator(seed))
    assert (new >= (lengths / 1.1).floor().clamp(min=1)).all()
    assert (new <= (lengths / 0.9).ceil()).all()


def test_frequency_warp_scales_the_mel_axis():
    ramp = torch.arange(80.0).expand(1, 20, 80)
    out, _ = warp(ramp, torch.tensor([20]), WarpConfig(tempo=0, frequency=0.1, level_db=0), _generator(1))
    slope = (out[0, 10, 40] - out[0, 10, 20]) / 20
    assert 0.9 <= slope <= 1.1
    assert abs(slope - 1) > 1e-3
    torch.testing.assert_close(out[0, 10, 10:70].diff(), slope.expand(59), rtol=1e-3, atol=1e-3)


def test_padding_never_leaks_into_an_utterance():
    features = torch.zeros(1, 40, 80)
    features[:, 20:] = 1e6
    out, lengths = warp(features, torch.tensor([20]), WarpConfig(level_db=0), _generator(2))
    assert out[0, : lengths[0]].abs().max() == 0
