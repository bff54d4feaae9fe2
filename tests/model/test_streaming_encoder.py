"""A stream is encoded as the masked full forward would, however its features are cut."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from raysr.errors import ConfigError
from raysr.model.mask import Chunk, chunk_mask
from raysr.model.model import AsrModel
from raysr.model.streaming import Streamer

MakeModel = Callable[..., AsrModel]


def features_of(frames: int, seed: int = 0) -> Tensor:
    return torch.randn(frames, 32, generator=torch.Generator().manual_seed(seed))


def stream(streamer: Streamer, features: Tensor, cuts: list[int]) -> Tensor:
    """Push ``features`` cut at ``cuts`` and return all that comes out."""
    state, outs = streamer.initial_state(), []
    for piece in torch.tensor_split(features, sorted(cut % (len(features) + 1) for cut in cuts)):
        out, state = streamer.step(state, piece)
        outs.append(out)
    return torch.cat([*outs, streamer.finish(state)])


def masked(model: AsrModel, features: Tensor, chunk_size: int, left_chunks: int) -> Tensor:
    with torch.no_grad():
        return model.encode(features[None], torch.tensor([len(features)]), chunk_size, left_chunks).out[0]


@pytest.mark.parametrize("kind", ["conformer", "transformer"])
@pytest.mark.parametrize("chunk_size", range(1, 26))
def test_every_chunk_and_left_context_equals_the_masked_full_forward(
    make_model: MakeModel, kind: str, chunk_size: int
) -> None:
    model = make_model(kind=kind)
    features = features_of(230)
    for left_chunks in (-1, 0, 1, 2, 5, 60):
        expected = masked(model, features, chunk_size, left_chunks)
        streamed = stream(Streamer(model, chunk_size, left_chunks), features, cuts=[1, 50, 51, 140])
        torch.testing.assert_close(streamed, expected, atol=1e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    frames=st.integers(0, 90),
    cuts=st.lists(st.integers(0, 90), max_size=8),
    chunk_size=st.integers(1, 25),
    left_chunks=st.integers(-1, 4),
    rate=st.sampled_from([2, 4, 6, 8]),
)
@example(frames=0, cuts=[], chunk_size=4, left_chunks=1, rate=4)
@example(frames=6, cuts=[3], chunk_size=1, left_chunks=0, rate=4)
@example(frames=7, cuts=[], chunk_size=16, left_chunks=4, rate=4)
@example(frames=67, cuts=[], chunk_size=16, left_chunks=4, rate=4)
@example(frames=68, cuts=[66, 67], chunk_size=16, left_chunks=4, rate=4)
def test_any_length_in_any_pieces_equals_the_masked_full_forward(
    make_model: MakeModel, frames: int, cuts: list[int], chunk_size: int, left_chunks: int, rate: int
) -> None:
    model = make_model(subsampling=rate)
    features = features_of(frames)
    streamed = stream(Streamer(model, chunk_size, left_chunks), features, cuts)
    assert len(streamed) == model.output_frames(frames)
    torch.testing.assert_close(streamed, masked(model, features, chunk_size, left_chunks), atol=1e-5, rtol=0)


def test_a_chunk_is_encoded_as_soon_as_its_window_is_there(make_model: MakeModel) -> None:
    streamer = Streamer(make_model(), chunk_size=16, left_chunks=4)
    out, state = streamer.step(streamer.initial_state(), features_of(66))
    assert len(out) == 0
    out, state = streamer.step(state, features_of(1))
    assert len(out) == 16
    out, state = streamer.step(state, features_of(63))
    assert len(out) == 0
    assert len(streamer.step(state, features_of(1))[0]) == 16


def test_the_state_of_a_long_stream_does_not_grow(make_model: MakeModel) -> None:
    streamer = Streamer(make_model(), chunk_size=4, left_chunks=2)
    state, sizes = streamer.initial_state(), []
    for push in range(40):
        _, state = streamer.step(state, features_of(16, seed=push))
        numbers = [cache for block in state.caches for cache in (*block.attention, block.convolution)]
        sizes.append(sum(tensor.numel() for tensor in [state.features, *numbers]))
    assert sizes[-1] == sizes[5]
    assert state.seen == 8


def test_an_earlier_state_can_be_gone_on_from_again(make_model: MakeModel) -> None:
    streamer = Streamer(make_model(), chunk_size=3, left_chunks=2)
    features = features_of(120)
    _, state = streamer.step(streamer.initial_state(), features[:50])
    first, _ = streamer.step(state, features[50:])
    streamer.finish(state)
    again, _ = streamer.step(state, features[50:])
    assert first.equal(again)


@pytest.mark.parametrize(("chunk_size", "left_chunks"), [(3, 1), (4, 0), (2, -1)])
@pytest.mark.parametrize("kind", ["conformer", "transformer"])
def test_an_output_depends_on_its_allowed_context_and_on_nothing_else(
    make_model: MakeModel, kind: str, chunk_size: int, left_chunks: int
) -> None:
    layers, kernel = 2, 3
    model = make_model(kind=kind, layers=layers, kernel=kernel)
    features = features_of(4 * 30 + 3).requires_grad_()
    out = model.encode(features[None], torch.tensor([len(features)]), chunk_size, left_chunks).out[0]
    layer = chunk_mask(len(out), Chunk(chunk_size, left_chunks)).float()
    if kind == "conformer":
        layer = torch.ones_like(layer).tril().triu(1 - kernel) @ layer
    reachable = torch.linalg.matrix_power(layer, layers) > 0  # (T', T')
    direction = torch.linspace(-1, 1, 16).exp()  # the plain sum of a LayerNorm is constant
    for frame in range(0, len(out), 4):
        (gradient,) = torch.autograd.grad(out[frame] @ direction, features, retain_graph=True)
        allowed = torch.zeros(len(features), dtype=torch.bool)
        for source in reachable[frame].nonzero().flatten().tolist():
            allowed[4 * source : 4 * source + 7] = True
        assert gradient.abs().sum(dim=1).bool().equal(allowed)


def test_a_model_of_full_context_refuses_to_stream(make_model: MakeModel) -> None:
    model = make_model(dynamic_chunk=False)
    with pytest.raises(ConfigError, match="dynamic_chunk"):
        Streamer(model, 16, 4)
    for chunk_size in (0, -1):
        with pytest.raises(ConfigError, match="chunk_size"):
            Streamer(make_model(), chunk_size, 4)
