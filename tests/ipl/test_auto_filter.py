"""The threshold that a canary sets: against brute force, and what happens where it cannot say."""

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.config import Spec
from raysr.errors import ConfigError
from raysr.ipl.canary import Judged
from raysr.ipl.filters.auto import Auto, smoothed, threshold
from raysr.ipl.plugins import FILTERS
from raysr.ipl.predictions import Prediction, TeacherHypothesis
from raysr.teachers.base import TeacherOutput

WORDS = 10


def judged(number: int, score: float | None, errors: int, teacher: str = "t") -> Judged:
    text = " ".join(["right"] * (WORDS - errors) + ["wrong"] * errors)
    output = TeacherOutput(text=text, normalised_score=score)
    row = Prediction(f"c{number:03d}", 1, 1.0, (TeacherHypothesis(teacher, "1", output),))
    return Judged(row, " ".join(["right"] * WORDS))


def auto(canary: Sequence[Judged], size: int = 200, **options: Any) -> Any:
    context = SimpleNamespace(canary=canary, canary_size=size, dev=[1])
    return FILTERS.build(Spec(kind="auto", **options), context)


CANARIES = st.lists(st.tuples(st.integers(-20, 0), st.integers(0, WORDS)), min_size=2, max_size=30)


@given(CANARIES, st.integers(0, 100), st.integers(2, 10), st.randoms())
def test_as_much_is_kept_as_smoothed_errors_allow(
    found: list[tuple[int, int]], max_wer: int, least: int, order: random.Random
) -> None:
    canary = [judged(n, float(score), errors) for n, (score, errors) in enumerate(found)]
    config = Auto.Config(max_wer=max_wer, least=least)
    chosen = threshold(canary, config)
    shuffled = list(canary)
    order.shuffle(shuffled)
    assert threshold(shuffled, config) == chosen
    fitted = nearest_monotone([(float(s), e / WORDS) for s, e in found])
    allowed = []
    for level in sorted(fitted, reverse=True):
        kept = [fitted[float(score)] for score, _ in found if score >= level]
        if len(kept) >= least and 100 * np.mean(kept) <= max_wer + 1e-6:
            allowed.append(level)
    assert chosen.value == (min(allowed) if allowed and len(found) >= least else None)


def nearest_monotone(points: list[tuple[float, float]]) -> dict[float, float]:
    """The min-max formula of isotonic regression: rates that fall as values rise, by value."""
    values = sorted({value for value, _ in points})
    mean = {v: np.mean([rate for value, rate in points if value == v]) for v in values}
    size = {v: sum(value == v for value, _ in points) for v in values}

    def average(low: int, high: int) -> float:
        part = values[low : high + 1]
        return float(np.average([mean[v] for v in part], weights=[size[v] for v in part]))

    return {
        v: min(max(average(i, j) for j in range(at, len(values))) for i in range(at + 1))
        for at, v in enumerate(values)
    }


@given(CANARIES)
def test_smoothed_errors_fall_as_the_quantity_rises_and_add_up(found: list[tuple[int, int]]) -> None:
    values, rates = (np.array(column, dtype=np.float64) for column in zip(*found, strict=True))
    levels, fitted, weights = smoothed(values, rates, np.ones_like(rates))
    assert (np.diff(levels) < 0).all()
    assert (np.diff(fitted) >= -1e-12).all()
    assert fitted @ weights == pytest.approx(rates.sum())


def test_the_f_score_keeps_the_good_and_leaves_the_bad() -> None:
    canary = [judged(n, -n / 10, 0 if n < 20 else 5) for n in range(40)]
    found = threshold(canary, Auto.Config(goal="f_score", least=5))
    assert found.value == pytest.approx(-1.9)
    assert "F-score" in found.why
    assert "1.00" in found.why


def test_labels_above_the_threshold_stay_and_reasons_say_why() -> None:
    canary = [judged(n, -n / 10, 0 if n < 20 else 5) for n in range(40)]
    rows = [judged(100 + n, -n / 10, 0).prediction for n in range(40)]
    unknown = judged(999, None, 0).prediction
    reasons = auto(canary, max_wer=10, least=5)([*rows, unknown])
    # of the canary 20 labels without errors and 5 with half of the words wrong have 10%
    assert sorted(reasons) == [p.id for p in rows[25:]] + ["c999"]
    assert reasons["c125"] == "score -2.500 below -2.400; above it 62% of 40 canary labels have 10.0% WER"
    assert reasons["c999"] == "no score to rank by"


@pytest.mark.parametrize(
    ("canary", "why"),
    [
        ([], "the canary has 0 such labels, 30 are needed"),
        ([judged(n, -n, 5) for n in range(50)], "the best 30 of the canary have 50.0% WER, not 10%"),
    ],
)
def test_where_the_canary_cannot_say_a_share_is_kept(canary: list[Judged], why: str) -> None:
    rows = [judged(100 + n, -n, 0).prediction for n in range(10)]
    reasons = auto(canary, otherwise=0.7)(rows)
    assert reasons.keys() == {"c107", "c108", "c109"}
    assert all(reason.endswith(why) for reason in reasons.values())


def test_each_teachers_scores_have_a_threshold_of_their_own() -> None:
    def labels(first: int, unit: float, teacher: str) -> list[Judged]:
        return [judged(first + n, -n * unit, 0 if n < 20 else 5, teacher) for n in range(40)]

    canary = [*labels(0, 0.1, "one"), *labels(100, 10.0, "other")]
    rows = [j.prediction for j in [*labels(200, 0.1, "one"), *labels(300, 10.0, "other")]]
    reasons = auto(canary, max_wer=10, least=5)(rows)
    assert sorted(reasons) == [f"c{n}" for n in (*range(225, 240), *range(325, 340))]
    # a student of an earlier cycle is none of the canary's
    carried = [j.prediction for j in labels(400, 0.1, "earlier")]
    alone = auto(labels(0, 0.1, "one"), max_wer=10, least=5)(carried)
    assert sorted(alone) == [f"c{n}" for n in range(425, 440)]


def test_without_a_canary_the_filter_is_refused_before_anything_is_labelled() -> None:
    with pytest.raises(ConfigError, match=r"name data\.dev"):
        auto([], size=0)
