"""The grammar: the same seed gives the same sentences; plain text, many words, open names."""

import re
from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.corpus.demo.grammar import FRAMES, Grammar, names
from raysr.text.normalise import normalise

SEEDS = st.integers(0, 10_000)


def drawn(seed: int, count: int, open_names: bool = True, taken: tuple[str, ...] = ()) -> list[str]:
    return list(islice(Grammar(seed, open_names).sentences(taken), count))


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_a_seed_gives_the_same_sentences_none_twice(seed):
    sentences = drawn(seed, 200)
    assert sentences == drawn(seed, 200)
    assert len(set(sentences)) == 200


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_sentences_are_plain_and_of_speakable_length(seed):
    for sentence in drawn(seed, 200):
        assert re.fullmatch(r"[a-z]+('[a-z]+)?( [a-z]+('[a-z]+)?)*", sentence)
        assert normalise(sentence) == sentence
        assert 5 <= len(sentence.split()) <= 13


@given(SEEDS)
@settings(max_examples=5, deadline=None)
def test_taken_sentences_do_not_come_again(seed):
    taken = drawn(seed, 300)
    assert not set(taken) & set(drawn(seed, 300, taken=tuple(taken)))


@given(SEEDS)
@settings(max_examples=5, deadline=None)
def test_open_names_come_only_where_they_may(seed):
    open_names = names(open_only=True)
    closed, free = (" ".join(drawn(seed, 400, open_names=flag)).split() for flag in (False, True))
    assert not open_names & set(closed)
    assert len(open_names & set(free)) > 40


def test_half_of_the_names_are_open_and_the_words_are_many():
    assert len(names(open_only=True)) * 2 == len(names())
    assert len(FRAMES) >= 30
    assert len(set(" ".join(drawn(1, 2000)).split())) >= 350
