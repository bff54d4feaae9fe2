"""Pieces loaded in one pass are bit for bit what each is by itself, and a break costs only what lies behind it."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from corpora import damage
from hypothesis import given
from hypothesis import strategies as st

from raysr.audio.encode import encode_opus, wav_bytes
from raysr.corpus.load import load_waveform
from raysr.corpus.load_together import WIDEST_GAP_S, load_together, neighbours
from raysr.corpus.shards import write_shards
from raysr.corpus.utterance import Utterance
from raysr.errors import AudioError

SECONDS = 8.0
PIECES = st.lists(st.tuples(st.floats(0, 7.5), st.floats(0.01, 4.0)), min_size=2, max_size=6)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("recordings")
    samples = 0.3 * np.random.default_rng(0).standard_normal(round(16000 * SECONDS)).clip(-3, 3)
    made = {"wav": wav_bytes(samples), "44100": wav_bytes(samples, 44100), "opus": encode_opus(samples)}
    for name, data in made.items():
        (folder / f"{name}.audio").write_bytes(data)
    return {name: folder / f"{name}.audio" for name in made}


@pytest.mark.parametrize("form", ["wav", "44100", "opus"])
@given(pieces=PIECES)
def test_each_piece_is_what_it_is_by_itself(
    form: str, pieces: list[tuple[float, float]], recordings: dict[str, Path]
) -> None:
    scale = 16000 / 44100 if form == "44100" else 1.0
    utterances = [
        Utterance(f"{n}", str(recordings[form]), scale * d, start=scale * s)
        for n, (s, d) in enumerate(pieces)
    ]
    mixed = [*utterances, Utterance("mixed", str(recordings[form]), 0.5, mix={"gain_db": -6.0})]
    for found, utterance in zip(load_together(mixed), mixed, strict=True):
        assert np.array_equal(found, load_waveform(utterance))


def test_a_break_costs_only_what_lies_behind_it(recordings: dict[str, Path], tmp_path: Path) -> None:
    data = recordings["wav"].read_bytes()
    cut = tmp_path / "cut.wav"
    cut.write_bytes(data[: len(data) // 2])
    before, across, behind = load_together(
        [
            Utterance("1", str(cut), 1.0),
            Utterance("2", str(cut), 2.0, start=3.0),
            Utterance("3", str(cut), 1.0, start=6),
        ]
    )
    assert np.array_equal(before, load_waveform(Utterance("1", str(recordings["wav"]), 1.0)))
    assert isinstance(across, AudioError)
    assert isinstance(behind, AudioError)
    assert "utterance 3: " in str(behind)


@given(st.lists(st.tuples(st.sampled_from("xy"), st.integers(0, 1), st.integers(0, 300)), max_size=12))
def test_neighbours_are_of_one_recording_and_near(places: list[tuple[str, int, int]]) -> None:
    utterances = [Utterance(str(n), a, 5.0, row=r, start=float(s)) for n, (a, r, s) in enumerate(places)]
    groups = list(neighbours(utterances))
    assert sorted(n for group in groups for n in group) == list(range(len(utterances)))
    for group in groups:
        members = [utterances[n] for n in group]
        assert len({(u.audio, u.row) for u in members}) == 1
        for one, other in itertools.pairwise(members):
            assert one.start <= other.start <= one.start + one.duration + WIDEST_GAP_S
    assert len({(utterances[g[0]].audio, utterances[g[0]].row) for g in groups}) == len(
        {(a, r) for a, r, _ in places}
    )


def test_damage_of_any_kind_costs_the_pieces_of_one_recording(tmp_path: Path) -> None:
    (shard,) = write_shards(tmp_path, [(Utterance("row", "", 1.0), b"RIFF" * 99)])
    damage(shard, "count")
    pieces = [Utterance(f"{n}", str(shard), 0.5, row=0, start=0.5 * n) for n in range(2)]
    assert [type(found) for found in load_together(pieces)] == [IndexError, IndexError]
