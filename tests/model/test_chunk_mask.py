"""Who may attend to whom, checked pair by pair against the definition."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from raysr.model.mask import FULL_CONTEXT, Chunk, attention_mask, chunk_mask, sample_chunk, valid_frames


def allowed(i: int, j: int, chunk: Chunk) -> bool:
    """U2's rule, written for one pair of frames."""
    if chunk.size < 0:
        return True
    begin = 0 if chunk.left < 0 else (i // chunk.size - chunk.left) * chunk.size
    return begin <= j < (i // chunk.size + 1) * chunk.size


chunks = st.one_of(st.just(FULL_CONTEXT), st.builds(Chunk, st.integers(1, 9), st.integers(-1, 4)))


@given(st.integers(0, 20), chunks)
def test_chunk_mask_equals_its_definition(frames: int, chunk: Chunk) -> None:
    expected = [[allowed(i, j, chunk) for j in range(frames)] for i in range(frames)]
    assert chunk_mask(frames, chunk).tolist() == expected


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), chunks)
def test_no_frame_sees_padding_but_every_row_sees_something(lengths: list[int], chunk: Chunk) -> None:
    frames = max(*lengths, 1)
    mask = attention_mask(valid_frames(torch.tensor(lengths), frames), chunk)
    assert mask.shape == (len(lengths), 1, frames, frames)
    assert mask.any(dim=-1).all()
    for row, length in zip(mask[:, 0], lengths, strict=True):
        assert not row[:length, length:].any()
        assert row[:length, :length].equal(chunk_mask(frames, chunk)[:length, :length])


def test_sampled_chunks_cover_their_range_and_the_share_of_full_context() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [sample_chunk(5, 2, 0.5, generator) for _ in range(2000)]
    chunked = [chunk for chunk in drawn if chunk != FULL_CONTEXT]
    assert 0.45 < len(chunked) / len(drawn) < 0.55
    assert {chunk.size for chunk in chunked} == {1, 2, 3, 4, 5}
    assert {chunk.left for chunk in chunked} == {2}


def test_share_of_full_context_may_be_all_or_nothing() -> None:
    assert all(sample_chunk(5, -1, 1.0, None) == FULL_CONTEXT for _ in range(20))
    assert all(sample_chunk(5, -1, 0.0, None).size > 0 for _ in range(20))


def test_generator_alone_decides_the_chunk() -> None:
    torch.manual_seed(1)
    first = [sample_chunk(25, -1, 0.5, torch.Generator().manual_seed(7)) for _ in range(3)]
    torch.manual_seed(2)
    assert first == [sample_chunk(25, -1, 0.5, torch.Generator().manual_seed(7)) for _ in range(3)]
