"""How many frames subsampling gives, and of which input frames each is made."""

from collections.abc import Callable

import pytest
import torch

from raysr.model.model import AsrModel
from raysr.model.subsampling import LAYERS, Subsampling

MakeModel = Callable[..., AsrModel]


@pytest.mark.parametrize("rate", LAYERS)
def test_output_frames_are_those_computed(rate: int) -> None:
    subsampling = Subsampling(mel_bins=32, dim=4, rate=rate, channels=2, dropout=0.0)
    assert subsampling.hop == rate
    for frames in range(60):
        out = subsampling(torch.randn(1, frames, 32))
        assert out.shape == (1, max((frames - subsampling.window) // rate + 1, 1), 4)


@pytest.mark.parametrize("kind", ["conformer", "transformer", "lstm", "blstm"])
@pytest.mark.parametrize("rate", LAYERS)
def test_every_encoder_gives_the_frames_it_says(make_model: MakeModel, kind: str, rate: int) -> None:
    model = make_model(kind=kind, subsampling=rate)
    assert model.encoder.hop == rate
    for frames in range(40):
        with torch.no_grad():
            encoded = model.encode(torch.randn(1, frames, 32), torch.tensor([frames]))
        expected = model.output_frames(frames)
        assert encoded.out.shape[1] == expected
        assert encoded.lengths.tolist() == [expected]
    assert [model.output_frames(model.encoder.window + more) for more in (-1, 0, rate)] == [0, 1, 2]


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
    assert [subsampling(torch.randn(1, frames, 80)).shape[1] for frames in (6, 7, 10, 11, 67)] == [
        1,
        1,
        1,
        2,
        16,
    ]
