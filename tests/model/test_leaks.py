"""By gradient: an output depends on its allowed context and on nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from raysr.model.mask import Chunk, chunk_mask
from raysr.model.model import AsrModel

MakeModel = Callable[..., AsrModel]

FRAMES = 30
DIRECTION = torch.linspace(-1, 1, 16).exp()  # the plain sum of a LayerNorm is constant


def touched(
    model: AsrModel, frames: list[int], chunk_size: int, left_chunks: int, lookahead: int = 0
) -> Tensor:
    """Return (N, T) bool: which fbank frames each of the N output ``frames`` depends on."""
    features = torch.randn(4 * FRAMES + 3, 32, requires_grad=True)
    lengths = torch.tensor([len(features)])
    out = model.encode(features[None], lengths, chunk_size, left_chunks, lookahead).out[0]
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
    layers, kernel = 2, 5
    model = make_model(kind=kind, layers=layers, kernel=kernel, attention=attention)
    chunk = model.check_chunk(chunk_size, left_chunks)
    layer = chunk_mask(FRAMES, chunk).float()
    if kind == "conformer":
        left = kernel - 1 if attention["kind"] == "left" else kernel // 2
        layer = chunk_mask(FRAMES, Chunk(chunk.size, -1)).float().triu(-left).tril(kernel // 2) @ layer
    reachable = torch.linalg.matrix_power(layer, layers) > 0  # (T', T')
    frames = list(range(0, FRAMES, 5))
    for frame, seen in zip(frames, touched(model, frames, chunk_size, left_chunks), strict=True):
        assert seen.equal(windows(reachable[frame]))


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize(
    ("chunk_size", "left_chunks", "lookahead"), [(4, 1, 3), (3, -1, 1), (2, 2, 5), (7, 0, 2)]
)
@pytest.mark.parametrize("kind", ["conformer", "transformer"])
def test_a_chunk_looks_as_far_ahead_at_any_depth(
    make_model: MakeModel, kind: str, layers: int, chunk_size: int, left_chunks: int, lookahead: int
) -> None:
    kernel = 5
    model = make_model(kind=kind, layers=layers, kernel=kernel)

    def end(chunk: int) -> int:
        return min((chunk + 1) * chunk_size + lookahead, FRAMES)

    def attended(chunk: int) -> set[tuple[int, int]]:
        """Frames are told apart by the chunk that computes them: (chunk, frame)."""
        first = 0 if left_chunks < 0 else max(chunk - left_chunks, 0)
        past = {(frame // chunk_size, frame) for frame in range(first * chunk_size, chunk * chunk_size)}
        return past | {(chunk, frame) for frame in range(chunk * chunk_size, end(chunk))}

    def convolved(chunk: int, frame: int) -> set[tuple[int, int]]:
        near = range(max(frame - kernel // 2, 0), min(frame + kernel // 2 + 1, end(chunk)))
        return {(min(other // chunk_size, chunk), other) for other in near}

    frames = list(range(0, FRAMES, 5))
    seen = touched(model, frames, chunk_size, left_chunks, lookahead)
    for frame, seen_by_frame in zip(frames, seen, strict=True):
        sources = {(frame // chunk_size, frame)}
        for _ in range(layers):
            if kind == "conformer":
                sources = {source for chunk, other in sources for source in convolved(chunk, other)}
            sources = {source for chunk, _ in sources for source in attended(chunk)}
        reachable = torch.zeros(FRAMES, dtype=torch.bool)
        reachable[[source for _, source in sources]] = True
        assert seen_by_frame.equal(windows(reachable))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("right_chunks", [1, 2])
def test_the_look_ahead_of_chunk_flow_grows_with_depth(
    make_model: MakeModel, layers: int, right_chunks: int
) -> None:
    model = make_model(layers=layers, attention={"kind": "flow", "right_chunks": right_chunks})
    lookahead = model.encoder.delay(model.check_chunk(3, 1))
    assert lookahead == 3 * right_chunks * layers
    last_seen = touched(model, [5], 3, 1)[0].nonzero().max()
    assert last_seen == 4 * (5 + lookahead) + 6


def test_an_lstm_sees_the_past_and_a_blstm_everything(make_model: MakeModel) -> None:
    frames = [0, 7, 29]
    for frame, seen in zip(frames, touched(make_model(kind="lstm"), frames, -1, -1), strict=True):
        assert seen.equal(windows(torch.arange(FRAMES) <= frame))
    assert touched(make_model(kind="blstm"), frames, -1, -1).all()
