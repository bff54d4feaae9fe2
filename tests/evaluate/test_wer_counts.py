"""Error counts agree with a plain dynamic programme, add up, and see both sides through one normaliser."""

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.evaluate.wer import ErrorCounts, by_tag, score, total
from raysr.text.normalise import normalise

sentences = st.lists(st.sampled_from(["a", "bb", "ccc", "dd", "e"]), max_size=8).map(" ".join)
pairs = st.lists(st.tuples(sentences, sentences), min_size=1, max_size=5)


def distance(reference: list[str] | str, hypothesis: list[str] | str) -> int:
    row = list(range(len(hypothesis) + 1))
    for i, expected in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, found in enumerate(hypothesis, 1):
            diagonal, row[j] = row[j], min(diagonal + (expected != found), row[j] + 1, row[j - 1] + 1)
    return row[-1]


@given(pairs)
def test_errors_are_the_edit_distance_of_words_and_of_characters(texts: list[tuple[str, str]]) -> None:
    references, hypotheses = zip(*texts, strict=True)
    rows = score([str(i) for i in range(len(texts))], references, hypotheses)
    for row, reference, hypothesis in zip(rows, references, hypotheses, strict=True):
        assert row.words.errors == distance(reference.split(), hypothesis.split())
        assert row.words.reference == len(reference.split())
        assert row.characters.errors == distance(reference, hypothesis)
        assert row.words.hits + row.words.substitutions + row.words.insertions == len(hypothesis.split())


@given(pairs.filter(lambda texts: any(reference for reference, _ in texts)))
def test_the_pooled_rate_is_jiwers_rate_of_the_whole_set(texts: list[tuple[str, str]]) -> None:
    references, hypotheses = map(list, zip(*texts, strict=True))
    rows = score([str(i) for i in range(len(texts))], references, hypotheses)
    assert total(row.words for row in rows).rate == pytest.approx(jiwer.wer(references, hypotheses))


def test_both_sides_pass_one_normaliser() -> None:
    (row,) = score(["a"], ["It's 3 o'clock, Anna!"], ["it's three o'clock anna"])
    assert row.words.errors == 0
    assert row.reference == row.hypothesis == normalise("It's 3 o'clock, Anna!")


def test_a_rate_of_no_reference_words_is_unknown_and_not_zero() -> None:
    (row,) = score(["a"], [""], ["two words"])
    assert row.words == ErrorCounts(insertions=2)
    assert row.words.rate is None
    assert score([], [], []) == []


def test_groups_pool_the_utterances_of_each_tag_value() -> None:
    rows = score(["a", "b", "c"], ["x y", "x", "x x"], ["x", "x", "z x"])
    groups = by_tag(rows, {"a": {"room": "near", "voice": "1"}, "b": {"room": "far"}, "c": {"room": "near"}})
    assert groups["room"]["near"] == ErrorCounts(hits=2, substitutions=1, deletions=1)
    assert groups["room"]["far"].rate == 0
    assert groups["voice"] == {"1": ErrorCounts(hits=1, deletions=1)}
