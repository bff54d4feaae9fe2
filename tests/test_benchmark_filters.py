"""What the comparison of filters rests on: shares are exact, ties count in part, unknown is last."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.filters import Labels, as_table, compare, kept_at, weights
from raysr.ipl.canary import Judged
from raysr.ipl.predictions import Prediction, TeacherHypothesis
from raysr.teachers.base import TeacherOutput


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.floats(0.05, 1))
def test_a_share_with_ties_is_the_mean_over_all_orders_of_equals(values: list[int], share: float) -> None:
    count = share * len(values)
    expected = np.zeros(len(values))
    orders = [
        order
        for order in itertools.permutations(range(len(values)))
        if all(values[a] >= values[b] for a, b in itertools.pairwise(order))
    ]
    for order in orders:
        for place, n in enumerate(order):
            expected[n] += min(1.0, max(0.0, count - place)) / len(orders)
    found = weights(np.array(values, dtype=np.float64), share)
    assert found == pytest.approx(expected)
    assert found.sum() == pytest.approx(count)


def judged(wrong: int, score: float | None, heads: float | None) -> Judged:
    text = " ".join(["x"] * wrong + ["a"] * (10 - wrong))
    output = TeacherOutput(text, normalised_score=score, ctc_attention_agreement=heads)
    return Judged(Prediction("u", 1, 1.0, (TeacherHypothesis("t", "1", output),)), " ".join(["a"] * 10))


def test_quantities_are_compared_at_equal_shares() -> None:
    rows = [judged(0, -0.1, 1.0), judged(1, -0.4, 1.0), judged(5, -0.2, 0.5), judged(8, None, 0.2)]
    labels = Labels.of(rows)
    assert kept_at([labels], "heads", 10.0, [0.5]) == {
        "kept": 0.5,
        "precision": 1.0,
        "recall": 1.0,
        "label_wer": 0.05,
    }
    assert kept_at([labels], "score", 10.0, [0.5])["precision"] == 0.5
    results = compare({1: [labels, labels]}, 10.0, [0.5])
    told = results["cycles"]["1"]
    assert told["quantities"].keys() == {"score", "heads"}
    assert told["quantities"]["heads"]["area"] == 1.0
    assert told["quantities"]["score"]["area"] == 0.75
    assert told["quantities"]["score"]["known"] == 0.75
    assert told["quantities"]["score"]["at"]["heads within 0%"]["kept"] == 0.5
    assert told["area_over_score"]["heads"][0] == 0.25
    assert "| heads | 1.000 | 100.0 / 100.0 / 5.0 (50%) |" in as_table(results)
