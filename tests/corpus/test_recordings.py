"""The same audio is recognised under other names, in shards and in part, and other audio is not taken for it."""

import shutil
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corpora import damage
from hypothesis import given
from hypothesis import strategies as st

from raysr.audio.speech_segments import Segment
from raysr.corpus.cutting import Cut
from raysr.corpus.manifest import open_manifest
from raysr.corpus.recordings import Digests, HeldOut, copies, overlap
from raysr.corpus.shards import write_shards
from raysr.corpus.utterance import Utterance


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[[str, float], Utterance]:
    """Return a function that records so many seconds of noise under a name."""
    generator = np.random.default_rng(0)

    def record(name: str, seconds: float) -> Utterance:
        path = tmp_path / f"{name}.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(generator.integers(-99, 99, int(16000 * seconds), dtype=np.int16).tobytes())
        return Utterance(name, str(path), seconds, text="words")

    return record


def held(tmp_path: Path, *utterances: Utterance) -> HeldOut:
    return HeldOut({"dev": utterances}, Digests(tmp_path / "hashes.jsonl"))


def copy(utterance: Utterance, name: str) -> Utterance:
    path = Path(utterance.audio).with_name(f"{name}.wav")
    shutil.copy(utterance.audio, path)
    return replace(utterance, id=name, audio=str(path))


def test_copies_links_and_overlapping_parts_are_held_out(
    corpus: Callable[[str, float], Utterance], tmp_path: Path
) -> None:
    one = corpus("one", 2.0)
    index = held(tmp_path, replace(one, start=0.5, duration=1.0))
    other, same_size = corpus("other", 1.5), corpus("same size", 2.0)
    link = tmp_path / "link.wav"
    link.symlink_to(one.audio)
    copied = copy(one, "copied")
    assert index.holds(one) == "dev: the same recording as 'one'"
    assert index.holds(replace(one, id="x", audio=str(link))) == "dev: the same recording as 'one'"
    assert index.holds(copied) == "dev: a copy of 'one'"
    assert index.holds(replace(copied, start=1.4, duration=0.6)) == "dev: a copy of 'one'"
    assert index.holds(replace(copied, start=1.5, duration=0.5)) is None
    assert index.holds(replace(one, start=0.0, duration=0.5)) is None
    assert index.holds(other) is None
    assert index.holds(same_size) is None
    assert index.holds(replace(one, audio=str(tmp_path / "gone.wav"))) is None


def test_a_cut_between_held_out_ones_is_looked_for_in_their_copies(
    corpus: Callable[[str, float], Utterance], tmp_path: Path
) -> None:
    one = corpus("one", 2.0)
    again = copy(one, "again")
    index = HeldOut(
        {"dev": [replace(one, duration=1.0)], "test": [replace(again, start=1.0, duration=1.0)]},
        Digests(tmp_path / "hashes.jsonl"),
    )
    assert index.holds(replace(one, start=1.2, duration=0.5)) == "test: a copy of 'again'"


def test_rows_of_shards_and_files_are_told_by_their_bytes(
    corpus: Callable[[str, float], Utterance], tmp_path: Path
) -> None:
    spoken = [corpus(f"u{n}", 1.0 + n) for n in range(3)]
    items = [(u, Path(u.audio).read_bytes()) for u in spoken]
    renamed = [(replace(u, id=f"copy of {u.id}"), audio) for u, audio in reversed(items)]
    write_shards(tmp_path / "first", items)
    write_shards(tmp_path / "second", renamed)
    shutil.copytree(tmp_path / "first", tmp_path / "moved")
    first, second, moved = (list(open_manifest(tmp_path / n)) for n in ("first", "second", "moved"))
    of_rows = held(tmp_path, first[1])
    assert [of_rows.holds(u) for u in second] == [None, "dev: a copy of 'u1'", None]
    assert [of_rows.holds(u) for u in moved] == [None, "dev: the same recording as 'u1'", None]
    assert [of_rows.holds(u) for u in spoken] == [None, "dev: a copy of 'u1'", None]
    of_files = held(tmp_path, replace(spoken[2], duration=3.004))  # a manifest that rounds
    assert [of_files.holds(u) for u in second] == ["dev: a copy of 'u2'", None, None]


def test_pieces_of_a_row_are_told_by_their_recording(
    corpus: Callable[[str, float], Utterance], tmp_path: Path
) -> None:
    long, other = corpus("long", 4.0), corpus("other", 5.0)
    write_shards(tmp_path / "shards", [(u, Path(u.audio).read_bytes()) for u in (long, other)])
    row, stranger = open_manifest(tmp_path / "shards")
    cuts = [Segment(0.0, 1.5), Segment(2.25, 3.5)]
    pieces = Cut(row.id, row.duration, cuts).utterances(row)
    strange = Cut(stranger.id, stranger.duration, cuts).utterances(stranger)
    index = held(tmp_path, long)
    assert [index.holds(u) for u in pieces] == ["dev: a copy of 'long'"] * 2
    assert [index.holds(u) for u in strange] == [None, None]
    assert len((tmp_path / "hashes.jsonl").read_text().splitlines()) == 2  # the held-out one and the row
    assert (
        index.holds(replace(row, start=2.0, duration=1.0)) == "dev: a copy of 'long'"
    )  # nobody says of what
    index = held(tmp_path, replace(long, start=2.0, duration=1.0))
    assert index.holds(row) == "dev: a copy of 'long'"
    assert [index.holds(u) for u in pieces] == [None, "dev: a copy of 'long'"]
    assert index.holds(stranger) is None
    assert held(tmp_path, replace(long, duration=1.0)).holds(row) == "dev: a copy of 'long'"


@pytest.mark.parametrize("kind", ["header", "count", "values"])
def test_a_damaged_row_is_no_copy_of_anything(
    corpus: Callable[[str, float], Utterance], tmp_path: Path, kind: str
) -> None:
    one = corpus("one", 1.0)
    (shard,) = write_shards(tmp_path / "shards", [(one, Path(one.audio).read_bytes())])
    damage(shard, kind)
    assert held(tmp_path, one).holds(next(iter(open_manifest(shard)))) is None


def test_what_was_hashed_is_remembered_until_it_changes(
    corpus: Callable[[str, float], Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = corpus("one", 0.5)
    file = tmp_path / "hashes.jsonl"
    before = Digests(file).of(one)
    with file.open("a") as torn:
        torn.write('["torn')
    monkeypatch.setattr("raysr.corpus.recordings._hashed", lambda _: pytest.fail("read again"))
    assert Digests(file).of(one) == before
    monkeypatch.undo()
    changed = corpus("one", 0.75)
    assert Digests(file).of(changed) != before


def test_only_audio_that_may_be_the_same_is_read(
    corpus: Callable[[str, float], Utterance], tmp_path: Path
) -> None:
    index = held(tmp_path, corpus("one", 1.0))
    for n in range(5):
        assert index.holds(corpus(f"other {n}", 2.0 + n)) is None
    assert len((tmp_path / "hashes.jsonl").read_text().splitlines()) == 1


def test_the_first_of_each_audio_stays(corpus: Callable[[str, float], Utterance], tmp_path: Path) -> None:
    b = corpus("b", 1.0)
    d = corpus("d", 1.0)
    found = [d, copy(b, "c"), b, replace(d, id="e", start=0.4, duration=0.4), copy(b, "a"), corpus("f", 1.0)]
    assert dict(copies(found, Digests(tmp_path / "hashes.jsonl"))) == {"b": "a", "c": "a", "e": "d"}
    noisy = replace(b, id="noisy", mix={"noise": {"snr_db": 5}})
    assert dict(copies([b, noisy, replace(noisy, id="z")], Digests(tmp_path / "h.jsonl"))) == {"z": "noisy"}
    part, later = replace(d, id="p", duration=0.5), replace(d, id="q", start=0.5, duration=0.5)
    middle = replace(d, id="r", start=0.3, duration=0.4)
    assert dict(copies([middle, later, part], Digests(tmp_path / "x.jsonl"))) == {"r": "p"}


@given(st.floats(0, 9), st.floats(0.1, 5), st.floats(0, 9), st.floats(0.1, 5))
def test_overlap_is_symmetric_and_leaves_neighbours_apart(a: float, b: float, c: float, d: float) -> None:
    one, other = Utterance("a", "/x", b, start=a), Utterance("b", "/x", d, start=c)
    assert overlap(one, other) == overlap(other, one)
    assert overlap(one, one)
    assert not overlap(one, Utterance("c", "/x", 1.0, start=a + b))
