"""By gradient: an output depends on its allowed context and on nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from raysr.model.mask import chunk_mask
from raysr.model.model import AsrModel

MakeModel = Callable[..., AsrModel]

FRAMES = 30
DIRECTION = torch.linspace(-1, 1, 16).exp()  # the plain sum of a LayerNorm is constant


def touched(model: AsrModel, frames: list[int], chunk_size: int, left_chunks: int) -> Tensor:
    """Return (N, T) bool: which fbank frames each of the N output ``frames`` depends on."""
    features = torch.randn(4 * FRAMES + 3, 32, requires_grad=True)
    lengths = torch.tensor([len(features)])
    out = model.encode(features[None], lengths, chunk_size, left_chunks).out[0]
    gradients = [torch.autograd.grad(out[f] @ DIRECTION, features, retain_graph=True)[0] for f in frames]
    return torch.stack([gradient.abs().sum(dim=1) > 0 for gradient in gradients])


def windows(reachable: Tensor) -> Tensor:
    """Return the fbank frames (T,) that the encoder frames (T',) are computed from, at rate 4."""
    allowed = torch.zeros(4 * FRAMES + 3, dtype=torch.bool)
    for source in reachable.nonzero().flatten().tolist():
        allowed[4 * source : 4 * source + 7] = True
    return allowed


@pytest.mark.parametrize(
    ("attention", "chunk_size", "left_chunks"),
    [
        ({"kind": "dynamic"}, 3, 1),
        ({"kind": "dynamic"}, 4, 0),
        ({"kind": "chunk"}, 2, -1),
        ({"kind": "left"}, 1, 5),
        ({"kind": "left", "left_chunks": 3}, -1, -1),
        ({"kind": "flow"}, 3, 1),
        ({"kind": "flow", "right_chunks": 2}, 2, 0),
        ({"kind": "flow", "chunk": 4}, -1, -1),
    ],
)
@pytest.mark.parametrize("kind", ["conformer", "transformer"])
def test_attention_sees_its_context_in_every_layer(
    make_model: MakeModel, kind: str, attention: dict[str, Any], chunk_size: int, left_chunks: int
) -> None:
    layers, kernel = 2, 3
    model = make_model(kind=kind, layers=layers, kernel=kernel, attention=attention)
    layer = chunk_mask(FRAMES, model.check_chunk(chunk_size, left_chunks)).float()
    if kind == "conformer":
        layer = torch.ones_like(layer).tril().triu(1 - kernel) @ layer
    reachable = torch.linalg.matrix_power(layer, layers) > 0  # (T', T')
    frames = list(range(0, FRAMES, 4))
    for frame, seen in zip(frames, touched(model, frames, chunk_size, left_chunks), strict=True):
        assert seen.equal(windows(reachable[frame]))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("right_chunks", [1, 2])
def test_the_look_ahead_of_chunk_flow_grows_with_depth(
    make_model: MakeModel, layers: int, right_chunks: int
) -> None:
    model = make_model(layers=layers, attention={"kind": "flow", "right_chunks": right_chunks})
    lookahead = model.encoder.lookahead(model.check_chunk(3, 1))
    assert lookahead == 3 * right_chunks * layers
    last_seen = touched(model, [5], 3, 1)[0].nonzero().max()
    assert last_seen == 4 * (5 + lookahead) + 6


def test_an_lstm_sees_the_past_and_a_blstm_everything(make_model: MakeModel) -> None:
    frames = [0, 7, 29]
    for frame, seen in zip(frames, touched(make_model(kind="lstm"), frames, -1, -1), strict=True):
        assert seen.equal(windows(torch.arange(FRAMES) <= frame))
    assert touched(make_model(kind="blstm"), frames, -1, -1).all()
