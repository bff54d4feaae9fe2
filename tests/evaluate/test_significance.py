"""Comparisons of two systems: against brute force, the sign test, and on data whose truth is known."""

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.evaluate.bootstrap import wer_interval
from raysr.evaluate.significance import EXACT, by_unit, compare, permutation_p

differences = st.lists(st.integers(-3, 3), min_size=1, max_size=8)


@given(differences)
def test_few_differences_are_tried_with_every_sign(found: list[int]) -> None:
    tried = [
        abs(sum(s * d for s, d in zip(signs, found, strict=True)))
        for signs in product((-1, 1), repeat=len(found))
    ]
    assert permutation_p(found) == pytest.approx(np.mean([sum_ >= abs(sum(found)) for sum_ in tried]))


@pytest.mark.parametrize("better", [30, 41, 52])
def test_of_many_differences_alike_it_is_the_sign_test(better: int) -> None:
    count = 72
    assert count > EXACT
    found = np.where(np.arange(count) < better, 1.0, -1.0)
    far = abs(2 * better - count)
    exact = sum(comb(count, k) for k in range(count + 1) if abs(2 * k - count) >= far) / 2**count
    assert permutation_p(found, draws=20_000) == pytest.approx(exact, abs=0.012)


def test_two_systems_alike_differ_by_chance_as_often_as_p_says() -> None:
    generator = np.random.default_rng(2)
    ps = []
    for _ in range(200):
        words = generator.integers(3, 12, size=60)
        one, other = generator.binomial(words, 0.2), generator.binomial(words, 0.2)
        ps.append(compare(one, other, words, draws=200).p)
    assert np.mean(np.array(ps) <= 0.1) == pytest.approx(0.1, abs=0.06)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(3)
    held = []
    for _ in range(400):
        words = generator.integers(4, 15, size=150)
        hardness = generator.beta(2, 8, size=150)  # utterances differ; 0.2 on average
        found = wer_interval(generator.binomial(words, hardness), words, draws=500)
        held.append(found.low <= 0.2 <= found.high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.035)


def test_utterances_of_a_speaker_are_drawn_together() -> None:
    generator = np.random.default_rng(4)
    held = {"utterance": [], "speaker": []}
    for _ in range(200):
        level = np.repeat(
            generator.beta(2, 8, size=40), 10
        )  # 40 speakers with ten utterances of like hardness
        words = np.full(400, 8)
        errors = generator.binomial(words, level)
        units = list(np.repeat(np.arange(40), 10))
        alone = wer_interval(errors, words, draws=300)
        together = wer_interval(by_unit(errors, units), by_unit(words, units), draws=300)
        held["utterance"].append(alone.low <= 0.2 <= alone.high)
        held["speaker"].append(together.low <= 0.2 <= together.high)
    assert np.mean(held["speaker"]) > 0.88
    assert np.mean(held["utterance"]) < 0.8, "what happens to who takes them for independent"


@given(differences)
def test_sums_by_unit_are_all_there(values: list[int]) -> None:
    units = [value % 2 for value in values]
    assert sorted(by_unit(values, units)) == sorted(
        sum(v for v, u in zip(values, units, strict=True) if u == unit) for unit in set(units)
    )
    assert list(by_unit(values, None)) == values


def test_the_better_system_is_named_by_its_sign() -> None:
    words = np.full(200, 10)
    one, other = np.full(200, 1), np.full(200, 3)
    found = compare(one, other, words)
    assert (found.wer, found.other) == pytest.approx((0.1, 0.3))
    assert found.difference.high < 0
    assert found.p < 0.001
    assert (found.fewer, found.more) == (200, 0)
    assert compare(one, one, words).p == 1.0


def test_without_words_there_is_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="no word"):
        compare([1], [0], [0])
