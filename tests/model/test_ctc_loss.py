"""The CTC loss against the sum over every alignment, and what is too short for it."""

from collections.abc import Callable
from itertools import groupby, product

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raysr.model.ctc import BLANK, CtcHead, frames_needed
from raysr.model.model import AsrModel

MakeModel = Callable[..., AsrModel]


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [token for token, _ in groupby(path) if token != BLANK]


def probability(log_probs: Tensor, tokens: list[int]) -> float:
    """Sum p(path) over all V^T paths of (T, V) that collapse to ``tokens``."""
    probs = log_probs.detach().double().exp()
    paths = (path for path in product(range(probs.shape[1]), repeat=len(probs)) if collapsed(path) == tokens)
    return sum(float(probs[range(len(path)), path].prod()) for path in paths)


@settings(max_examples=15, deadline=None)
@given(frames=st.integers(1, 5), tokens=st.lists(st.integers(1, 2), max_size=3), seed=st.integers(0, 99))
def test_loss_is_the_log_of_the_sum_over_all_alignments(frames: int, tokens: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    head, out = CtcHead(4, 3), torch.randn(1, frames + 2, 4)
    loss = head.loss(out, torch.tensor([frames]), torch.tensor([[*tokens, 1]]), torch.tensor([len(tokens)]))
    expected = probability(head.log_probs(out)[0, :frames], tokens)
    if expected == 0:
        assert loss.item() == 0
    else:
        torch.testing.assert_close(loss[0].exp().reciprocal(), torch.tensor(expected), rtol=1e-4, atol=0)


@settings(max_examples=40, deadline=None)
@given(tokens=st.lists(st.integers(1, 2), max_size=4))
def test_frames_needed_is_the_shortest_alignment(tokens: list[int]) -> None:
    shortest = next(
        frames
        for frames in range(9)
        if any(collapsed(path) == tokens for path in product(range(3), repeat=frames))
    )
    padded = torch.tensor([[*tokens, 1, 1]])
    assert frames_needed(padded, torch.tensor([len(tokens)])).tolist() == [shortest]
    assert frames_needed(torch.tensor([tokens]).long(), torch.tensor([len(tokens)])).tolist() == [shortest]


def test_utterances_too_short_are_counted_and_do_not_count(make_model: MakeModel) -> None:
    model = make_model()
    features = torch.randn(4, 23, 32)  # 5 frames when whole
    tokens = torch.tensor([[3, 3, 3, 4], [3, 3, 3, 0], [3, 0, 0, 0], [3, 0, 0, 0]])
    lengths, token_lengths = torch.tensor([23, 23, 23, 5]), torch.tensor([4, 3, 1, 1])
    losses = model.loss(features, lengths, tokens, token_lengths)
    assert losses.utterances_too_short == 2  # six frames needed of five, and one needed of none
    kept = model.loss(features[1:3], lengths[1:3], tokens[1:3], token_lengths[1:3])
    for part in ("total", "ctc", "attention"):
        torch.testing.assert_close(getattr(losses, part), getattr(kept, part) / 2)


def test_a_batch_of_nothing_but_too_short_utterances_trains_nothing(make_model: MakeModel) -> None:
    model = make_model().train()
    losses = model.loss(
        torch.randn(2, 4, 32), torch.tensor([4, 0]), torch.tensor([[3, 4], [3, 0]]), torch.tensor([2, 1])
    )
    assert losses.total == 0
    assert losses.utterances_too_short == 2
    losses.total.backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_empty_transcripts_are_trained_on(make_model: MakeModel) -> None:
    losses = make_model().loss(
        torch.randn(2, 30, 32),
        torch.tensor([30, 20]),
        torch.zeros(2, 0, dtype=torch.long),
        torch.tensor([0, 0]),
    )
    assert losses.utterances_too_short == 0
    assert losses.ctc > 0
    assert losses.attention > 0
