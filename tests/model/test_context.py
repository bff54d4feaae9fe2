"""Which context a training batch gets, and which ones a trained model can be asked for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raysr.errors import ConfigError
from raysr.model.config import AttentionConfig
from raysr.model.context import sample_context
from raysr.model.mask import FULL_CONTEXT, Chunk
from raysr.model.model import AsrModel

MakeModel = Callable[..., AsrModel]


def drawn(frames: int, draws: int, **attention: Any) -> list[Chunk]:
    generator = torch.Generator().manual_seed(0)
    return [sample_context(AttentionConfig(**attention), frames, generator) for _ in range(draws)]


def test_sampled_chunks_cover_their_range_and_the_share_of_full_context() -> None:
    contexts = drawn(60, 2000, min_chunk=2, max_chunk=5, left_chunks=2)
    chunked = [chunk for chunk in contexts if chunk != FULL_CONTEXT]
    assert 0.45 < len(chunked) / len(contexts) < 0.55
    assert set(chunked) == {Chunk(size, 2) for size in (2, 3, 4, 5)}


@pytest.mark.parametrize("frames", [0, 1, 2, 7, 12])
def test_dynamic_left_reaches_every_context_up_to_the_whole_utterance(frames: int) -> None:
    contexts = drawn(frames, 2000, min_chunk=1, max_chunk=8, full_context_share=0, dynamic_left=True)
    last = max(frames - 1, 0)
    assert set(contexts) == {Chunk(size, left) for size in range(1, 9) for left in range(last // size + 1)}


def test_share_of_full_context_may_be_all_or_nothing() -> None:
    assert set(drawn(60, 20, full_context_share=1)) == {FULL_CONTEXT}
    assert all(chunk.size > 0 for chunk in drawn(60, 20, full_context_share=0))


def test_generator_alone_decides_the_chunk() -> None:
    torch.manual_seed(1)
    first = drawn(60, 3)
    torch.manual_seed(2)
    assert first == drawn(60, 3)


@pytest.mark.parametrize(
    ("attention", "trained", "streamed"),
    [
        ({"kind": "full"}, FULL_CONTEXT, None),
        ({"kind": "left", "left_chunks": 7}, Chunk(1, 7), None),
        ({"kind": "chunk", "chunk": 5, "left_chunks": 2}, Chunk(5, 2), Chunk(8, 4)),
        ({"kind": "flow", "chunk": 5, "right_chunks": 2}, Chunk(5, -1, 2), Chunk(8, 4, 2)),
        ({"kind": "dynamic"}, FULL_CONTEXT, Chunk(8, 4)),
    ],
)
def test_a_model_is_asked_for_the_contexts_it_was_trained_with(
    make_model: MakeModel, attention: dict[str, Any], trained: Chunk, streamed: Chunk | None
) -> None:
    model = make_model(attention=attention)
    assert model.check_chunk(-1, 4) == trained
    if attention["kind"] != "dynamic":
        assert model.encoder.training_context(100, None) == trained
    if streamed:
        assert model.check_chunk(8, 4) == streamed
    else:
        with pytest.raises(ConfigError, match=f"chunk_size: .*{attention['kind']}"):
            model.check_chunk(8, 4)


@pytest.mark.parametrize(
    ("encoder", "ahead"),
    [
        ({"attention": {"kind": "dynamic"}}, 3),
        ({"attention": {"kind": "chunk"}}, 3),
        ({"attention": {"kind": "flow"}}, 0),
        ({"attention": {"kind": "left"}}, 0),
        ({"kind": "lstm"}, 0),
    ],
)
def test_models_look_ahead_that_can_make_use_of_it(
    make_model: MakeModel, encoder: dict[str, Any], ahead: int
) -> None:
    model = make_model(**encoder)
    assert model.check_chunk(1, 4, 3).ahead == ahead
    assert model.check_chunk(-1, 4, 3).ahead == 0
    assert model.latency(1, 3).worst_ms - model.latency(1).worst_ms == 40 * ahead
    with pytest.raises(ConfigError, match=r"lookahead.*-1"):
        model.check_chunk(1, 4, -1)


def test_left_attention_streams_frame_by_frame(make_model: MakeModel) -> None:
    assert make_model(attention={"kind": "left"}).check_chunk(1, 30) == Chunk(1, 30)


@pytest.mark.parametrize("kind", ["conformer", "lstm", "blstm"])
def test_no_chunk_is_of_no_frames(make_model: MakeModel, kind: str) -> None:
    with pytest.raises(ConfigError, match="chunk_size: 0"):
        make_model(kind=kind).check_chunk(0, 4)


def test_a_blstm_does_not_stream(make_model: MakeModel) -> None:
    with pytest.raises(ConfigError, match="whole utterances"):
        make_model(kind="blstm").check_chunk(16, 4)


@given(st.integers(0, 300), st.integers(0, 99))
def test_a_training_batch_counts_its_frames_after_subsampling(
    make_model: MakeModel, frames: int, seed: int
) -> None:
    attention = {"dynamic_left": True, "full_context_share": 0.0}
    model = make_model(attention=attention, subsampling=8)
    context = model.encoder.training_context(frames, torch.Generator().manual_seed(seed))
    assert context == sample_context(
        AttentionConfig(**attention), model.output_frames(frames), torch.Generator().manual_seed(seed)
    )
