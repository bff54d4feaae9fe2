"""Greedy decoding against folding the best tokens by hand."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.decode.greedy import greedy


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), frames=st.integers(0, 20), cut=st.integers(0, 20))
def test_the_best_token_of_every_frame_is_folded(seed: int, frames: int, cut: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_probs = torch.log_softmax(2 * torch.randn(2, frames, 4, generator=generator), dim=-1)
    lengths = torch.tensor([frames, min(cut, frames)])
    for row, length, hypothesis in zip(log_probs, lengths.tolist(), greedy(log_probs, lengths), strict=True):
        best = row[:length].argmax(dim=-1).tolist()
        runs = [(token, list(at)) for token, at in itertools.groupby(range(length), key=lambda t: best[t])]
        runs = [(token, at) for token, at in runs if token]
        assert list(hypothesis.tokens) == [token for token, _ in runs]
        assert hypothesis.score == pytest.approx(float(row[:length].max(dim=-1).values.sum()), abs=1e-4)
        for (token, at), time, confidence in zip(runs, hypothesis.times, hypothesis.confidences, strict=True):
            assert time in at
            assert confidence == pytest.approx(float(row[at, token].exp().max()), abs=1e-6)


def test_a_blank_between_equal_tokens_keeps_both() -> None:
    alignment = torch.tensor([[0, 3, 3, 0, 3, 1, 1, 0]])
    log_probs = torch.log_softmax(9.0 * torch.nn.functional.one_hot(alignment, 5).float(), dim=-1)
    (hypothesis,) = greedy(log_probs, torch.tensor([8]))
    assert hypothesis.tokens == (3, 3, 1)
    assert hypothesis.normalised_score == pytest.approx(hypothesis.score / 3)
