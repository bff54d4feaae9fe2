"""What the comparison of models rests on: joined speech, like sizes, counts of names, and audio that comes again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.biasing import DISTRACTING, WANTED, count, phrases
from benchmarks.joined import HISS, groups, join, open_names, training_utterances
from benchmarks.long_stream import LONGEST_LOOP, loop_minutes
from benchmarks.model_report import relative
from benchmarks.models import ENCODERS, Cell, recipe
from raysr.audio.files import decode
from raysr.corpus.demo import demo_corpus
from raysr.corpus.load import load_waveform
from raysr.corpus.utterance import Utterance
from raysr.model.model import AsrModel


def said(text: str, seconds: float = 1.0, name: str = "u") -> Utterance:
    return Utterance(id=name, audio="", duration=seconds, text=text)


@given(st.lists(st.floats(0.5, 12.0), min_size=1, max_size=20))
def test_joined_utterances_are_long_and_keep_their_order(durations: list[float]) -> None:
    utterances = [said("", seconds, str(n)) for n, seconds in enumerate(durations)]
    found = groups(utterances, 10.0)
    assert [u for group in found for u in group] == utterances
    assert all(sum(u.duration for u in group) >= 10.0 for group in found) or sum(durations) < 10.0
    assert all(sum(u.duration for u in group[:-1]) < 10.0 for group in found[:-1])


def test_a_joined_utterance_is_its_parts_with_pauses_of_little_noise() -> None:
    group = list(demo_corpus().tests["clean"])[:3]
    joined, encoded = join("three", group)
    samples = decode(encoded)
    assert joined.text == " ".join(u.text for u in group if u.text)
    assert joined.duration == len(samples) / 16000
    end = 0
    for number, part in enumerate(map(load_waveform, group)):
        pauses = range(3200, 9601) if number else [0]
        at = min(
            (end + p for p in pauses), key=lambda at: np.abs(samples[at : at + 4000] - part[:4000]).sum()
        )
        assert np.abs(samples[end:at]).max(initial=0.0) < 6 * HISS
        assert np.abs(samples[at : at + len(part)] - part).max() < 1e-4
        end = at + len(part)
    assert end == len(samples)


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_are_compared_at_a_like_size(name: str) -> None:
    sizes = [
        sum(p.numel() for p in AsrModel(recipe(Cell(n, 1, ENCODERS[n])).model, 31).parameters())
        for n in ("unified", name)
    ]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


def test_names_are_counted_in_normalised_texts_whether_listed_or_not() -> None:
    counts = count([said("Call Priya at the bank!")], ["call tobias at the bank tokyo"])
    assert (counts.said, counts.recalled, counts.claimed, counts.others, counts.errors) == (1, 0, 2, 4, 1)


def test_every_list_has_what_was_said_among_ten_and_a_hundred_that_nobody_says() -> None:
    corpus = demo_corpus()
    texts = [u.text or "" for part in (*corpus.tests.values(), *corpus.dev.values()) for u in part]
    spoken = {word for text in [*texts, *corpus.truth.values()] for word in text.split()}
    distracting = DISTRACTING.split(", ")
    assert len(set(distracting)) == 100
    assert not spoken & set(distracting)
    for utterance in corpus.tests["clean"]:
        offered = set(phrases(utterance, 1.0))
        assert set(open_names(corpus, utterance)) <= offered
        assert len(offered & corpus.open_names) == WANTED
        assert len(offered) == WANTED + 100


def test_unnamed_training_data_holds_no_open_name() -> None:
    corpus = demo_corpus()
    parts = training_utterances(corpus)
    texts = " ".join(u.text or "" for u in parts["unnamed"])
    assert not set(texts.split()) & corpus.open_names
    assert len(corpus.labelled) < len(parts["unnamed"]) < len(parts["train"])
    assert len(parts["train"]) == len(corpus.labelled) + len(corpus.unlabelled)


@given(st.integers(3, 400), st.integers(0, 30))
def test_the_last_minute_hears_what_the_first_after_warm_up_heard(minutes: int, warm_up: int) -> None:
    between = minutes - 1 - warm_up
    loop = loop_minutes(minutes, warm_up)
    assert 1 <= loop <= LONGEST_LOOP
    if between >= 1:
        assert between / loop == pytest.approx(round(between / loop))


def test_relative_errors_are_pooled_over_seeds() -> None:
    found = relative([[2, 4], [3, 3]], [[1, 4], [4, 1]])
    assert found["pooled"] == pytest.approx(0.2)
    assert found["by_seed"] == [pytest.approx(0.2), pytest.approx(0.2)]
