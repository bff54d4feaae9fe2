"""How many frames subsampling gives, and of which input frames each is made."""

import pytest
import torch

from raysr.model.subsampling import LAYERS, Subsampling


@pytest.mark.parametrize("rate", LAYERS)
def test_output_frames_are_those_computed(rate: int) -> None:
    subsampling = Subsampling(mel_bins=32, dim=4, rate=rate, channels=2, dropout=0.0)
    assert subsampling.hop == rate
    for frames in range(60):
        out = subsampling(torch.randn(1, frames, 32))
        assert out.shape == (1, max(subsampling.output_frames(frames), 1), 4)
        assert subsampling.output_frames(torch.tensor([frames])).tolist() == [
            subsampling.output_frames(frames)
        ]


@pytest.mark.parametrize("rate", LAYERS)
def test_an_output_frame_depends_on_its_window_alone(rate: int) -> None:
    subsampling = Subsampling(mel_bins=32, dim=4, rate=rate, channels=2, dropout=0.0)
    features = torch.randn(1, 80, 32, requires_grad=True)
    out = subsampling(features)
    for frame in range(out.shape[1]):
        (gradient,) = torch.autograd.grad(out[0, frame].sum(), features, retain_graph=True)
        touched = gradient[0].abs().sum(dim=1).nonzero().flatten()
        assert touched.min() >= frame * subsampling.hop
        assert touched.max() < frame * subsampling.hop + subsampling.window


def test_rate_4_has_the_window_of_u2() -> None:
    subsampling = Subsampling(mel_bins=80, dim=4, rate=4, channels=2, dropout=0.0)
    assert (subsampling.window, subsampling.hop) == (7, 4)
    assert [subsampling.output_frames(frames) for frames in (0, 6, 7, 10, 11, 67)] == [0, 0, 1, 1, 2, 16]
