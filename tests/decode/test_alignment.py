"""Forced alignment against enumerating every path of the tokens."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raysr.decode.alignment import Alignment, align
from raysr.model.ctc import frames_needed

VOCAB = 4
sequences = st.lists(st.lists(st.integers(1, VOCAB - 1), max_size=5), max_size=3)


def posteriors(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(2 * torch.randn(*shape, generator=generator), dim=-1)


def best_path(frames: Tensor, tokens: Sequence[int]) -> tuple[float, tuple[int, ...]] | None:
    """Return the most probable of all V^T label sequences that fold into ``tokens``, and its log-probability."""

    def folds(labels: tuple[int, ...]) -> bool:
        return [label for label, _ in itertools.groupby(labels) if label] == list(tokens)

    fitting = filter(folds, itertools.product(range(frames.shape[1]), repeat=len(frames)))
    scored = [
        (sum((float(frames[t, label]) for t, label in enumerate(labels)), 0.0), labels) for labels in fitting
    ]
    return max(scored, default=None)


def spans(frames: Tensor, labels: Sequence[int]) -> list[tuple[int, int, int, float]]:
    """Return first frame, last frame, peak and posterior of every token of a path."""
    runs = [
        (label, [t for t, _ in run])
        for label, run in itertools.groupby(enumerate(labels), key=lambda x: x[1])
        if label
    ]
    peaks = [max(at, key=lambda t: float(frames[t, label])) for label, at in runs]
    return [
        (at[0], at[-1], peak, float(frames[peak, label].exp()))
        for (label, at), peak in zip(runs, peaks, strict=True)
    ]


def check(found: Alignment | None, frames: Tensor, tokens: Sequence[int]) -> None:
    best = best_path(frames, tokens)
    if best is None or found is None:
        assert best is None
        assert found is None
        return
    expected = spans(frames, best[1])
    assert found.log_prob == pytest.approx(best[0], abs=1e-4)
    assert [*zip(found.first, found.last, found.peaks, strict=True)] == [s[:3] for s in expected]
    assert found.confidences == pytest.approx([s[3] for s in expected], abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    lengths=st.lists(st.integers(0, 7), min_size=1, max_size=3),
    vocab=st.integers(2, VOCAB),
    data=st.data(),
)
def test_the_best_of_all_paths_is_found_whatever_shares_the_batch(
    seed: int, lengths: list[int], vocab: int, data: st.DataObject
) -> None:
    log_probs = posteriors(seed, len(lengths), max(lengths), vocab)
    tokens = [
        [[min(token, vocab - 1) for token in sequence] for sequence in data.draw(sequences)] for _ in lengths
    ]
    found = align(log_probs, torch.tensor(lengths), tokens)
    for frames, length, wanted, alignments in zip(log_probs, lengths, tokens, found, strict=True):
        assert len(alignments) == len(wanted)
        for sequence, alignment in zip(wanted, alignments, strict=True):
            check(alignment, frames[:length], sequence)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), tokens=st.lists(st.integers(1, 3), min_size=1, max_size=12))
def test_tokens_fit_into_the_frames_that_ctc_needs_and_into_no_fewer(seed: int, tokens: list[int]) -> None:
    needed = int(frames_needed(torch.tensor([tokens]), torch.tensor([len(tokens)])))
    log_probs = posteriors(seed, 1, needed, VOCAB)
    ((tight,),) = align(log_probs, torch.tensor([needed]), [[tokens]])
    assert tight is not None
    assert tight.first == tight.last == tight.peaks
    assert align(log_probs, torch.tensor([needed - 1]), [[tokens]]) == [[None]]


def test_what_has_probability_0_cannot_be_aligned() -> None:
    log_probs = torch.full((1, 3, VOCAB), -1.0)
    log_probs[:, :, 2] = float("-inf")
    ((without, with_it),) = align(log_probs, torch.tensor([3]), [[[1], [1, 2]]])
    assert without is not None
    assert with_it is None


def test_no_frames_have_room_for_no_tokens() -> None:
    ((nothing, something),) = align(torch.zeros(1, 0, VOCAB), torch.tensor([0]), [[[], [1]]])
    assert nothing == Alignment(0.0, (), (), (), ())
    assert something is None
    assert align(torch.zeros(2, 5, VOCAB), torch.tensor([5, 5]), [[], []]) == [[], []]


def test_half_precision_is_summed_in_full() -> None:
    log_probs = posteriors(0, 1, 2000, VOCAB).half()
    tokens = [1, 2, 3] * 200
    ((half,),) = align(log_probs, torch.tensor([2000]), [[tokens]])
    ((double,),) = align(log_probs.double(), torch.tensor([2000]), [[tokens]])
    assert half is not None
    assert double is not None
    assert half.log_prob == pytest.approx(double.log_prob, rel=1e-5)


@pytest.mark.parametrize("token", [0, VOCAB, -1])
def test_a_token_that_cannot_be_aligned_is_named(token: int) -> None:
    with pytest.raises(ValueError, match=rf"utterance 1: {token} is no token .* 1 to 3"):
        align(posteriors(0, 2, 5, VOCAB), torch.tensor([5, 5]), [[], [[1, token]]])


def test_without_frames_no_tokens_are_aligned_and_any_are_not() -> None:
    log_probs, lengths = posteriors(0, 2, 0, VOCAB), torch.tensor([0, 0])
    nothing = Alignment(0.0, (), (), (), ())
    assert align(log_probs, lengths, [[[]], [[], []]]) == [[nothing], [nothing, nothing]]
    assert align(log_probs, lengths, [[[1]], [[]]]) == [[None], [nothing]]
