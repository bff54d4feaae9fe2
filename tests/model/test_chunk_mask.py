"""Who may attend to whom, checked pair by pair against the definition."""

from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from raysr.model.mask import FULL_CONTEXT, Chunk, attention_mask, chunk_mask, chunk_rows, valid_frames


def allowed(i: int, j: int, chunk: Chunk) -> bool:
    """U2's rule, with chunk-flow's neighbours to the right, written for one pair of frames."""
    if chunk.size < 0:
        return True
    own = i // chunk.size
    begin = 0 if chunk.left < 0 else (own - chunk.left) * chunk.size
    return begin <= j < (own + 1 + chunk.right) * chunk.size


chunks = st.one_of(
    st.just(FULL_CONTEXT),
    st.builds(Chunk, st.integers(1, 9), st.integers(-1, 4), st.integers(0, 3), st.just(0)),
)
looking_ahead = st.builds(Chunk, st.integers(1, 9), st.integers(-1, 4), st.just(0), st.integers(1, 12))


@given(st.integers(0, 20), chunks)
def test_chunk_mask_equals_its_definition(frames: int, chunk: Chunk) -> None:
    expected = [[allowed(i, j, chunk) for j in range(frames)] for i in range(frames)]
    assert chunk_mask(frames, chunk).tolist() == expected


@given(st.integers(0, 20), looking_ahead)
def test_frames_ahead_are_of_one_chunk_alone(frames: int, chunk: Chunk) -> None:
    rows = [
        (own, frame)
        for own in range(-(-frames // chunk.size))
        for frame in range(own * chunk.size, (own + 1) * chunk.size + chunk.ahead)
    ]
    assert chunk_rows(frames, chunk).tolist() == [frame for _, frame in rows]

    def sees(own: int, other: int, frame: int) -> bool:
        past = allowed(own * chunk.size, frame, chunk) and frame < own * chunk.size
        return own == other or (past and frame // chunk.size == other)

    expected = [[sees(own, other, frame) for other, frame in rows] for own, _ in rows]
    assert chunk_mask(len(rows), chunk).tolist() == expected


@given(st.integers(0, 20), chunks)
def test_without_them_every_frame_is_a_row(frames: int, chunk: Chunk) -> None:
    assert chunk_rows(frames, chunk).tolist() == list(range(frames))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), chunks)
def test_no_frame_sees_padding_but_every_row_sees_something(lengths: list[int], chunk: Chunk) -> None:
    frames = max(*lengths, 1)
    mask = attention_mask(valid_frames(tensor(lengths), frames), chunk)
    assert mask.shape == (len(lengths), 1, frames, frames)
    assert mask.any(dim=-1).all()
    for row, length in zip(mask[:, 0], lengths, strict=True):
        assert not row[:length, length:].any()
        assert row[:length, :length].equal(chunk_mask(frames, chunk)[:length, :length])
