"""Word posteriors against adding up by hand, and what a calibration makes of them."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from raysr.decode.calibration import Calibration, evidence, word_posteriors
from raysr.decode.hypothesis import EMPTY, Hypothesis
from raysr.decode.words import Word, best_words, utterance_confidence, words_of
from raysr.text.tokeniser import Tokeniser, TokeniserConfig

TOKENISER = Tokeniser.train(["see the sea see", "the tea"], TokeniserConfig(kind="char"))
CALIBRATION = Calibration(bias=-0.5, agreement=0.6, acoustic=0.3, utterance=0.2, length=0.8)


def spoken(text: str, probability: float, start: int = 0, confidence: float = 0.9) -> Hypothesis:
    """Return a hypothesis whose tokens lie two frames apart."""
    tokens = tuple(TOKENISER.encode(text))
    times = tuple(start + 2 * i for i in range(len(tokens)))
    confidences = (confidence,) * len(tokens)
    return Hypothesis(tokens, math.log(probability), 0.0, 0.0, None, times, confidences)


def test_a_word_has_the_mass_of_the_hypotheses_that_hold_it_in_its_place() -> None:
    nbest = [spoken("see the sea", 0.3), spoken("see the tea", 0.15), spoken("the the see", 0.05)]
    assert word_posteriors(TOKENISER, nbest) == pytest.approx([0.9, 1.0, 0.6])


def test_the_same_word_elsewhere_does_not_count() -> None:
    nbest = [spoken("see", 0.5), spoken("see", 0.3, start=20), spoken("see", 0.2, start=3)]
    assert word_posteriors(TOKENISER, nbest) == pytest.approx([0.7])


def test_evidence_is_log_odds_and_the_logarithm_of_the_length() -> None:
    nbest = [spoken("the sea", 0.6, confidence=0.9), spoken("the tea", 0.2)]
    heard = math.log(0.9 / 0.1)
    expected = [
        [math.log(0.999 / 0.001), heard, heard, math.log(3)],
        [math.log(3), heard, heard, math.log(3)],
    ]
    assert evidence(TOKENISER, nbest) == pytest.approx(np.array(expected))
    logits = [sum(w * e for w, e in zip((0.6, 0.3, 0.2, 0.8), row, strict=True)) - 0.5 for row in expected]
    found = CALIBRATION.confidences(TOKENISER, nbest)
    assert found == pytest.approx([1 / (1 + math.exp(-logit)) for logit in logits])


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=5))
def test_a_word_heard_better_is_trusted_no_less(heard: list[float]) -> None:
    others = [spoken("tea", 0.4)]
    found = [
        CALIBRATION.confidences(TOKENISER, [spoken("sea", 0.6, confidence=c), *others])[0]
        for c in sorted(heard)
    ]
    assert all(a <= b for a, b in pairwise(found))
    assert all(0 < c < 1 for c in found)


def test_a_calibration_changes_confidences_alone() -> None:
    nbest = [spoken("see the sea", 0.6), spoken("see the tea", 0.2)]
    raw = words_of(TOKENISER, nbest[0], 0.04, 1.0)
    assert best_words(TOKENISER, nbest, 0.04, 1.0) == raw
    words = best_words(TOKENISER, nbest, 0.04, 1.0, CALIBRATION)
    assert [(w.text, w.start, w.end) for w in words] == [(w.text, w.start, w.end) for w in raw]
    assert [w.confidence for w in words] == CALIBRATION.confidences(TOKENISER, nbest)


def test_no_words_have_no_confidence() -> None:
    assert best_words(TOKENISER, [EMPTY], 0.04, calibration=CALIBRATION) == ()
    assert utterance_confidence(()) == 0.0
    assert utterance_confidence([Word("a", 0, 1, 0.2), Word("b", 1, 2, 0.6)]) == pytest.approx(0.4)


def test_evidence_never_counts_against() -> None:
    with pytest.raises(ValidationError, match="acoustic"):
        Calibration(bias=0.0, agreement=1.0, acoustic=-0.1, utterance=0.0, length=0.0)
