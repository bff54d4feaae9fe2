"""Blocks hold every utterance once, are bounded, waste little on padding, and keep what lies together together."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from raysr.corpus.utterance import Utterance
from raysr.ipl.labelling.blocks import blocks

DURATIONS = st.lists(st.floats(0.1, 90), max_size=60)


def recordings(durations: list[float]) -> list[Utterance]:
    return [Utterance(f"u{n}", "shard.parquet", d, row=n) for n, d in enumerate(durations)]


@given(DURATIONS, st.integers(1, 9), st.floats(1, 200), st.integers(1, 4))
def test_every_utterance_is_in_one_block_and_no_block_is_too_large(
    durations: list[float], count: int, seconds: float, window: int
) -> None:
    utterances = recordings(durations)
    made = list(blocks(utterances, count, seconds, window))
    assert Counter(u.id for block in made for u in block) == Counter(u.id for u in utterances)
    for block in made:
        assert len(block) <= count
        assert len(block) == 1 or len(block) * max(u.duration for u in block) <= seconds


@given(DURATIONS, st.integers(1, 9), st.integers(1, 4))
def test_a_block_reads_from_one_window(durations: list[float], count: int, window: int) -> None:
    for block in blocks(recordings(durations), count, 1e9, window):
        assert len({int(u.id[1:]) // (count * window) for u in block}) == 1


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(2, 6))
def test_the_pieces_of_a_recording_stay_in_order(pieces: list[int], count: int) -> None:
    utterances = [
        Utterance(f"{r}@{n}", f"{r}.opus", 5.0, start=5.0 * n)
        for r, many in enumerate(pieces)
        for n in range(many)
    ]
    seen: dict[str, list[float]] = {}
    for block in blocks(utterances, count, 1e9, window=1000):
        cut = [u for u in block if pieces[int(u.audio.partition(".")[0])] > 1]
        assert len({u.audio for u in cut}) <= 1
        for u in block:
            seen.setdefault(u.audio, []).append(u.start)
    assert all(starts == sorted(starts) for starts in seen.values())


def test_sorting_halves_the_padding() -> None:
    durations = [1.0 + (n * 7919) % 29 for n in range(1024)]

    def padded(window: int) -> float:
        made = blocks(recordings(durations), 32, 1e9, window)
        return sum(len(b) * max(u.duration for u in b) for b in made) / sum(durations)

    assert padded(1) > 1.8
    assert padded(8) < 1.15
