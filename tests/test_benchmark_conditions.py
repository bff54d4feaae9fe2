"""The sets that conditions are measured on are what their names say, and the gains what was saved."""

import random
import unicodedata
from collections.abc import Iterator
from functools import partial
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.conditions import saved
from benchmarks.conditions_sets import DONE, FILLERS, condition_sets, disfluent, without_fillers
from benchmarks.two_languages import ENGLISH, MANDARIN, sentences, shards_once, two_languages, written
from raysr.audio.encode import flac_bytes
from raysr.corpus.demo import demo_corpus
from raysr.corpus.demo.grammar import Grammar
from raysr.corpus.load import load_waveform
from raysr.corpus.utterance import Utterance
from raysr.text.normalise import normalise

pytest.importorskip("espeakng_loader", reason="needs raysr[voices]")


def test_sentences_switch_between_two_languages() -> None:
    drawn = list(islice(sentences(1), 400))
    assert len({written(pieces) for pieces in drawn}) == 400
    for pieces in drawn:
        assert all(before != after for (before, _), (after, _) in pairwise(pieces))
        for language, text in pieces:
            letters = {unicodedata.name(letter).split()[0] for letter in text if letter not in " '"}
            assert letters == ({"LATIN"} if language == ENGLISH else {"CJK"}), text
        assert normalise(written(pieces)) == written(pieces)
    assert 0.4 < sum(len(pieces) > 1 for pieces in drawn) / 400 < 0.95
    assert {pieces[0][0] for pieces in drawn} == {ENGLISH, MANDARIN}


def test_the_corpus_of_two_languages_has_no_speaker_and_no_sentence_in_two_parts(tmp_path: Path) -> None:
    parts = two_languages(tmp_path, scale=0.02)
    again = two_languages(tmp_path, scale=0.02)
    assert again == parts
    for part in parts.values():
        for utterance in part:
            assert len(load_waveform(utterance)) / 16000 == pytest.approx(utterance.duration, abs=0.05)
            assert utterance.tags["switched"] == ("yes" if "+" in (utterance.language or "") else "no")
    for what in ("speaker", "text"):
        found = [{getattr(u, what) for u in part} for part in parts.values()]
        assert sum(map(len, found)) == len(set.union(*found)), what


@given(st.integers(0, 1000))
def test_who_thinks_meanwhile_says_the_sentence_all_the_same(seed: int) -> None:
    sentence = next(Grammar(seed, open_names=True).sentences())
    said = disfluent(sentence, random.Random(seed)).split()
    words = iter(said)
    assert all(word in words for word in sentence.split()), "in order"
    assert not set(FILLERS).intersection(sentence.split())
    assert without_fillers(" ".join(said)).split() == [word for word in said if word not in FILLERS]


def test_condition_sets_are_the_same_speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = demo_corpus()
    few = {name: part.sample(12, seed=1) for name, part in corpus.tests.items()}
    monkeypatch.setattr(type(corpus), "tests", property(lambda self: few))
    monkeypatch.setattr("benchmarks.conditions_sets.SPONTANEOUS_COUNT", 4)
    monkeypatch.setattr("benchmarks.conditions_sets.two_languages", partial(two_languages, scale=0.02))
    sets = condition_sets(tmp_path)
    clean = [(u.text, u.speaker) for u in few["clean"]]
    for name in ("music10", "music5", "music0", "far", *DONE):
        assert [(u.text, u.speaker) for u in sets[name]] == clean, name
        for dry, wet in zip(few["clean"], sets[name], strict=True):
            one, other = load_waveform(dry), load_waveform(wet)
            assert len(one) == len(other)
            assert np.abs(one - other).max() > 0.001, name
    ids = [u.id for part in sets.values() for u in part]
    parts_of_clean = {u.id for name in ("accents", "names") for u in sets[name]}
    assert parts_of_clean <= {u.id for u in few["clean"]}
    assert len(ids) - len(sets["accents"]) - len(sets["names"]) == len(set(ids))
    heard = {u.speaker for u in corpus.labelled}
    assert not heard.intersection(u.speaker for u in sets["accents"])
    assert not any((u.speaker or "").startswith("espeak-en-us-j") for u in sets["accents"])
    assert all(corpus.open_names.intersection((u.text or "").split()) for u in sets["names"])
    assert condition_sets(tmp_path) == sets


def test_shards_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    sound = flac_bytes(np.zeros(1600, np.float32))

    def made(count: int, fails: bool) -> Iterator[tuple[Utterance, bytes]]:
        for number in range(count):
            yield Utterance(f"u{number}", "", 0.1), sound
        if fails:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        shards_once(tmp_path / "part", lambda: made(2000, fails=True))
    assert not (tmp_path / "part").exists()
    assert len(shards_once(tmp_path / "part", lambda: made(3, fails=False))) == 3


def test_gains_are_the_share_of_errors_that_is_saved() -> None:
    before = np.array([[2, 0, 4], [2, 2, 0]])
    gain = saved(before, np.array([[1, 0, 2], [1, 1, 0]]))
    assert (gain.estimate, gain.low, gain.high) == (0.5, 0.5, 0.5)
    assert saved(before, before + 1).high < 0
