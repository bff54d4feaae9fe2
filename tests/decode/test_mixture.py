"""The mixture against the sum that defines it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.decode.mixture import Mixture
from raysr.decode.ngram import Ngram

VOCAB = 7
sentences = st.lists(st.lists(st.sampled_from([1, 3, 4, 5, 6]), max_size=6), min_size=1, max_size=6)


@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(sentences, min_size=1, max_size=3),
    history=st.lists(st.sampled_from([1, 3, 4, 5, 6]), max_size=5),
)
def test_it_is_the_weighted_sum_whatever_was_read(texts: list[list[list[int]]], history: list[int]) -> None:
    models = [Ngram.train(text, order, VOCAB) for order, text in enumerate(texts, start=2)]
    weights = [1 / len(models)] * (len(models) - 1)
    weights.append(1 - sum(weights))
    mixture = Mixture(models, weights)
    state, own = np.asarray([mixture.start()]), [np.asarray([m.start()]) for m in models]
    for token in history:
        state = mixture.advance(state, np.asarray([token]))
        own = [m.advance(s, np.asarray([token])) for m, s in zip(models, own, strict=True)]
    assert 0 <= state[0] < len(mixture)
    expected = sum(w * np.exp(m.score(s)) for w, m, s in zip(weights, models, own, strict=True))
    assert np.exp(mixture.score(state)) == pytest.approx(expected, rel=1e-5)
    tokens = np.asarray([[3, 2]])
    assert np.exp(mixture.score(state, tokens)) == pytest.approx(expected[:, [3, 2]], rel=1e-5)
    assert np.exp(mixture.eos(state)) == pytest.approx(expected[:, 2], rel=1e-5)


def test_weights_and_vocabularies_must_fit() -> None:
    one, other = Ngram.train([[3]], 2, VOCAB), Ngram.train([[3]], 2, VOCAB + 1)
    for models, weights in (([one, one], [0.5, 0.4]), ([one, one], [1.0, 0.0]), ([one], [0.5, 0.5])):
        with pytest.raises(ValueError, match="weight"):
            Mixture(models, weights)
    with pytest.raises(ValueError, match="one vocabulary"):
        Mixture([one, other], [0.5, 0.5])
