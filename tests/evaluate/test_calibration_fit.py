"""The fit finds the weights that words were drawn with, and right words are those that the alignment matches."""

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.evaluate.calibration import MIN_WORDS, JudgedWords, fit, right_words
from raysr.evaluate.reliability import reliability

words = st.lists(st.sampled_from(["a", "bb", "ccc", "dd"]), max_size=7)


def drawn(weights: list[float], bias: float, count: int = 40_000) -> tuple[JudgedWords, np.ndarray]:
    """Return words whose chance of being right is logistic in their evidence, and that chance."""
    generator = np.random.default_rng(0)
    evidence = generator.normal(size=(count, 4))
    chance = 1 / (1 + np.exp(-(evidence @ weights + bias)))
    return JudgedWords(evidence, generator.random(count) < chance), chance


def test_the_weights_that_words_were_drawn_with_are_found() -> None:
    judged, chance = drawn([0.8, 0.4, 0.2, 0.0], -0.3)
    found = fit(judged)
    assert found is not None
    weights = [found.agreement, found.acoustic, found.utterance, found.length]
    assert [*weights, found.bias] == pytest.approx([0.8, 0.4, 0.2, 0.0, -0.3], abs=0.04)
    confidences = 1 / (1 + np.exp(-(judged.evidence @ weights + found.bias)))
    assert abs(confidences - chance).max() < 0.05
    assert reliability(confidences, judged.right).calibration_error < 0.01


def test_evidence_against_is_left_out_and_the_rest_fitted_without_it() -> None:
    judged, _ = drawn([0.8, -0.4, 0.2, -0.1], 0.5)
    found = fit(judged)
    assert found is not None
    assert found.acoustic == found.length == 0.0
    without = JudgedWords(judged.evidence * [1, 0, 1, 0], judged.right)
    assert fit(without) == found


@pytest.mark.parametrize("right", [True, False])
def test_words_all_alike_give_a_confidence_near_but_not_at_the_end(right: bool) -> None:
    evidence = np.random.default_rng(1).normal(size=(200, 4))
    found = fit(JudgedWords(evidence, np.full(200, right)))
    assert found is not None
    assert 0.98 < 1 / (1 + np.exp(-found.bias if right else found.bias)) < 0.9999


def test_too_few_words_give_no_calibration() -> None:
    judged, _ = drawn([1.0, 1.0, 1.0, 1.0], 0.0, MIN_WORDS)
    assert fit(judged) is not None
    assert fit(JudgedWords(judged.evidence[1:], judged.right[1:])) is None


@given(words, words)
def test_as_many_words_are_right_as_the_error_count_has_hits(reference: list[str], heard: list[str]) -> None:
    right = right_words(" ".join(reference), heard)
    assert len(right) == len(heard)
    assert sum(right) == jiwer.process_words(" ".join(reference), " ".join(heard)).hits
    assert all(word in reference for word, is_right in zip(heard, right, strict=True) if is_right)


def test_both_sides_are_normalised() -> None:
    assert right_words("Mr. Smith has 20 cats", ["mister", "Smith", "has", "21", "cats"]) == [
        True,
        True,
        True,
        False,
        True,
    ]
