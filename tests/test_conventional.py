"""The conventional recogniser of the weak-distillation benchmark: what is made of its text and its confidences."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.conventional import (
    calibrated,
    evidence_of,
    in_other_surroundings,
    pronunciations,
    write_arpa,
)
from benchmarks.weak import DISTRACTING, SENTENCES, NewWords, text_with_names
from raysr.corpus.demo import demo_corpus
from raysr.corpus.demo.words import OPEN_NAMES
from raysr.corpus.load import load_waveform
from raysr.decode.calibration import Calibration
from raysr.teachers.base import TeacherOutput

KNOWS = Calibration(bias=0.4, agreement=0.3, acoustic=0.0, utterance=0.2, length=0.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_calibration_keeps_the_order_of_words_and_says_how_many_are_right(posteriors: list[float]) -> None:
    said = TeacherOutput(text=" ".join("abcdefgh"[: len(posteriors)]), confidences=tuple(posteriors))
    sure = calibrated(said, KNOWS)
    assert sure.text == said.text
    assert all(0 < p < 1 for p in sure.confidences)
    ranked = [p for _, p in sorted(zip(posteriors, sure.confidences, strict=True))]
    assert all(a <= b + 1e-12 for a, b in pairwise(ranked))
    assert np.exp(sure.normalised_score) == pytest.approx(np.mean(sure.confidences))


def test_what_says_nothing_is_sure_of_nothing() -> None:
    assert calibrated(TeacherOutput(), KNOWS) == TeacherOutput()
    with pytest.raises(ValueError, match="1 confidences of 2 words"):
        evidence_of(TeacherOutput(text="two words", confidences=(0.5,)))


def test_names_that_are_said_are_in_the_text_as_often_as_the_many_that_nobody_says() -> None:
    labelled = [u.text for u in demo_corpus().labelled]
    text = text_with_names()
    assert text[: len(labelled)] == labelled
    open_names = set(demo_corpus().open_names)
    listed = {n for names in (*OPEN_NAMES.values(), *DISTRACTING.values()) for n in names}
    assert len(listed) >= 11 * len(open_names)
    assert open_names <= listed
    holding = Counter(name for s in text[len(labelled) :] for name in listed.intersection(s.split()))
    assert {holding[name] for name in open_names} == {SENTENCES}
    assert min(holding[name] for name in listed) == SENTENCES  # a few distract as persons and as places
    assert not listed.intersection(word for sentence in labelled for word in (sentence or "").split())


def test_the_trigram_is_of_words_and_all_of_them_can_be_pronounced(tmp_path: Path) -> None:
    text = text_with_names()[-50:]
    words = sorted({word for sentence in text for word in sentence.split()})
    write_arpa(tmp_path / "names.arpa", text, words)
    lines = (tmp_path / "names.arpa").read_text().splitlines()
    unigrams = lines[lines.index("\\1-grams:") + 1 : lines.index("\\2-grams:")]
    assert {line.split("\t")[1] for line in unigrams if line} >= {"<s>", "</s>", *words}
    assert {line.split()[0].partition("(")[0] for line in pronunciations(set(words))} == set(words)


def test_surroundings_are_others_in_every_copy_and_the_speech_is_the_same() -> None:
    labelled = list(demo_corpus().labelled)[:12]
    first, again, other = (list(in_other_surroundings(labelled, seed)) for seed in (0, 0, 1))
    assert first == again != other
    kinds = {kind for u in first for kind in u.mix or {}}
    assert {"room", "music", "noise"} <= kinds
    mixed = next(u for u in first if u.mix)
    assert not np.array_equal(load_waveform(mixed), load_waveform(replace(mixed, mix=None)))


def test_labels_with_a_word_that_no_transcript_has_weigh_more() -> None:
    first, second = list(demo_corpus().labelled)[:2]
    weigh = NewWords(NewWords.Config(weight=3), SimpleNamespace(labelled=[first, second]))
    assert weigh([first, replace(second, text=f"{second.text} magnolia"), replace(second, text="")]) == [
        1,
        3,
        1,
    ]
