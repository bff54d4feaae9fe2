"""What confidences are worth, against closed forms and against comparing every pair."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.evaluate.reliability import reliability

judged = st.lists(
    st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), st.booleans()), min_size=1, max_size=30
)


@given(judged)
def test_area_brier_and_bins_are_what_they_say(words: list[tuple[float, bool]]) -> None:
    confidences, right = zip(*words, strict=True)
    found = reliability(confidences, right)
    good, bad = ([c for c, r in words if r is kind] for kind in (True, False))
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(good, bad)]
    assert found.area == pytest.approx(sum(pairs) / len(pairs) if pairs else 0.5)
    assert found.brier == pytest.approx(sum((c - r) ** 2 for c, r in words) / len(words))
    assert sum(b.words for b in found.bins) == found.words == len(words)
    assert max(b.words for b in found.bins) - min(b.words for b in found.bins) <= 1
    assert sum(b.words * b.right for b in found.bins) == pytest.approx(len(good))
    assert sum(b.words * b.confidence for b in found.bins) == pytest.approx(sum(confidences))


def test_confidence_that_is_too_high_errs_by_the_difference() -> None:
    found = reliability([0.9] * 1000, [True, True, True, False] * 250)
    assert found.calibration_error == pytest.approx(0.15)
    prior = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    given_ = -(0.75 * math.log(0.9) + 0.25 * math.log(0.1))
    assert found.cross_entropy == pytest.approx((prior - given_) / prior)


def test_the_prior_knows_nothing_and_the_truth_knows_all() -> None:
    right = np.arange(400) % 4 > 0
    assert reliability([0.75] * 400, right).cross_entropy == pytest.approx(0.0, abs=1e-9)
    best = reliability(right.astype(float), right)
    assert best.cross_entropy == pytest.approx(1.0, abs=1e-4)
    assert (best.area, best.brier, best.calibration_error) == (1.0, 0.0, 0.0)


def test_no_word_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="no word"):
        reliability([], [])
