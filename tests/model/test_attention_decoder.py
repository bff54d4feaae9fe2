"""The decoder's loss in closed form, and its scores against one hypothesis and one token at a time."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raysr.errors import ConfigError
from raysr.model.config import DECODERS
from raysr.model.decoder import EOS
from raysr.model.losses import append_eos, label_smoothing_loss, reversed_tokens
from raysr.model.model import AsrModel

MakeModel = Callable[..., AsrModel]
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


@given(
    logits=st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=6),
    smoothing=st.floats(0, 0.9),
    target=st.integers(0, 5),
)
def test_label_smoothing_is_the_divergence_from_the_smoothed_target(
    logits: list[float], smoothing: float, target: int
) -> None:
    target %= len(logits)
    total = sum(math.exp(logit) for logit in logits)
    expected = 0.0
    for token, logit in enumerate(logits):
        q = 1 - smoothing if token == target else smoothing / (len(logits) - 1)
        if q > 0:
            expected += q * (math.log(q) - (logit - math.log(total)))
    loss = label_smoothing_loss(torch.tensor([logits]), torch.tensor([target]), smoothing)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_without_smoothing_the_loss_is_cross_entropy_and_skips_padding() -> None:
    logits, targets = torch.randn(2, 3, 5), torch.tensor([[1, 2, -1], [4, -1, -1]])
    loss = label_smoothing_loss(logits, targets, 0.0)
    expected = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-1, reduction="none")
    torch.testing.assert_close(loss, expected)


@given(st.lists(st.lists(st.integers(3, 9), max_size=4), min_size=1, max_size=4))
def test_eos_follows_the_last_token(sequences: list[list[int]]) -> None:
    longest = max(len(sequence) for sequence in sequences)
    tokens = torch.tensor([sequence + [7] * (longest - len(sequence)) for sequence in sequences]).long()
    targets = append_eos(tokens, torch.tensor([len(sequence) for sequence in sequences]))
    for row, sequence in zip(targets.tolist(), sequences, strict=True):
        assert row == [*sequence, EOS, *[-1] * (longest - len(sequence))]


nbests = st.lists(st.lists(st.lists(st.integers(0, 6), max_size=4), max_size=3), min_size=3, max_size=3)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", DECODERS.known)
@settings(max_examples=15, deadline=None)
@given(hypotheses=nbests)
def test_scores_equal_those_of_each_prefix_alone(
    make_model: MakeModel, kind: str, reverse: bool, hypotheses: list[list[list[int]]]
) -> None:
    model = make_model(decoder=kind, reverse_weight=0.3)
    decoder = model.reverse_decoder if reverse else model.decoder
    assert decoder is not None
    torch.manual_seed(3)
    out, lengths = torch.randn(3, 12, 16), torch.tensor([12, 1, 7])
    token_scores = model.attention_token_log_probs(out, lengths, hypotheses, reverse)
    scores = model.attention_log_probs(out, lengths, hypotheses, reverse)
    assert [len(score) for score in scores] == [len(nbest) for nbest in hypotheses]
    for b, nbest in enumerate(hypotheses):
        memory = out[b : b + 1, : lengths[b]]
        valid = torch.ones(1, memory.shape[1], dtype=torch.bool)
        for n, tokens in enumerate(nbest):
            read = list(reversed(tokens)) if reverse else tokens
            expected = []
            for u, token in enumerate([*read, EOS]):
                prefix = torch.tensor(read[:u], dtype=torch.long).view(1, 1, -1)
                expected.append(decoder(memory, valid, prefix)[0, 0, -1].log_softmax(0)[token])
            torch.testing.assert_close(token_scores[b][n], torch.stack(expected), atol=1e-5, rtol=0)
            torch.testing.assert_close(scores[b][n], torch.stack(expected).sum(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", DECODERS.known)
def test_the_loss_mixes_both_directions(make_model: MakeModel, batch: Batch, kind: str) -> None:
    model = make_model(decoder=kind, reverse_weight=0.3, label_smoothing=0.0)
    out, lengths = model.encode(*batch[:2])
    texts = [[row[:length].tolist()] for row, length in zip(batch[2], batch[3], strict=True)]
    left, right = (
        -torch.cat(model.attention_log_probs(out, lengths, texts, r)).mean() for r in (False, True)
    )
    torch.testing.assert_close(model.loss(*batch).attention, 0.7 * left + 0.3 * right)


@given(st.lists(st.lists(st.integers(3, 9), max_size=4), min_size=1, max_size=4))
def test_texts_turn_round_within_their_length(sequences: list[list[int]]) -> None:
    longest = max(len(sequence) for sequence in sequences)
    tokens = torch.tensor([sequence + [7] * (longest - len(sequence)) for sequence in sequences]).long()
    turned = reversed_tokens(tokens, torch.tensor([len(sequence) for sequence in sequences]))
    for row, sequence in zip(turned.tolist(), sequences, strict=True):
        assert row == [*reversed(sequence), *[7] * (longest - len(sequence))]


def test_a_head_that_was_not_built_says_so(make_model: MakeModel) -> None:
    out, lengths = torch.randn(1, 4, 16), torch.tensor([4])
    with pytest.raises(ConfigError, match="CTC head"):
        make_model(ctc_weight=0.0).ctc_log_probs(out)
    with pytest.raises(ConfigError, match="attention decoder"):
        make_model(ctc_weight=1.0).attention_log_probs(out, lengths, [[[3]]])
    with pytest.raises(ConfigError, match="right-to-left"):
        make_model().attention_log_probs(out, lengths, [[[3]]], reverse=True)
