"""An utterance gives the same result alone and in a batch, whatever lies in the padding."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from raysr.model.model import AsrModel

MakeModel = Callable[..., AsrModel]
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


ENCODERS: list[dict[str, Any]] = [
    *(
        {"kind": kind, "attention": {"kind": attention}}
        for kind in ("conformer", "transformer")
        for attention in ("full", "left", "chunk", "flow", "dynamic")
    ),
    {"kind": "lstm"},
    {"kind": "blstm"},
]


@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
@settings(max_examples=10)
@given(
    lengths=st.lists(st.integers(0, 50), min_size=1, max_size=4),
    chunk=st.sampled_from([(-1, -1), (1, 4), (3, 1), (5, -1)]),
    rate=st.sampled_from([2, 4, 6, 8]),
)
@example(lengths=[0], chunk=(-1, -1), rate=4)
@example(lengths=[1, 50, 0], chunk=(-1, -1), rate=8)
def test_a_batch_equals_its_utterances_alone(
    make_model: MakeModel, encoder: dict[str, Any], lengths: list[int], chunk: tuple[int, int], rate: int
) -> None:
    model = make_model(subsampling=rate, **encoder)
    if not model.encoder.streams or (encoder.get("attention") == {"kind": "left"} and chunk[0] > 1):
        chunk = (-1, -1)
    features = torch.randn(len(lengths), max(lengths) + 9, 32)
    for row, length in zip(features, lengths, strict=True):
        row[length:] = float("nan")
    together = model.encode(features, torch.tensor(lengths), *chunk)
    for b, length in enumerate(lengths):
        alone = model.encode(features[b : b + 1, :length], torch.tensor([length]), *chunk)
        assert together.lengths[b] == alone.lengths[0] == alone.out.shape[1] == model.output_frames(length)
        torch.testing.assert_close(together.out[b, : alone.out.shape[1]], alone.out[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
def test_the_loss_of_a_batch_is_the_mean_of_its_utterances(
    make_model: MakeModel, batch: Batch, encoder: dict[str, Any], ctc_weight: float
) -> None:
    model = make_model(ctc_weight=ctc_weight, **encoder)
    features, lengths, tokens, token_lengths = batch
    for row, length in zip(features, lengths, strict=True):
        row[length:] = float("nan")
    alone = [
        model.loss(
            features[b : b + 1, : lengths[b]],
            lengths[b : b + 1],
            tokens[b : b + 1, : token_lengths[b]],
            token_lengths[b : b + 1],
        )
        for b in range(len(lengths))
    ]
    together = model.loss(*batch)
    for part in ("total", "ctc", "attention"):
        expected = torch.stack([getattr(losses, part) for losses in alone]).mean()
        torch.testing.assert_close(getattr(together, part), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
def test_what_lies_in_the_padding_changes_no_gradient(
    make_model: MakeModel, batch: Batch, encoder: dict[str, Any]
) -> None:
    features, _, tokens, token_lengths = batch
    lengths = torch.tensor([60, 0, 48])
    gradients = []
    for filling in (0.0, 100.0):
        model = make_model(**encoder)
        for row, length in zip(features, lengths, strict=True):
            row[length:] = filling
        model.loss(features, lengths, tokens, token_lengths).total.backward()
        gradients.append([weight.grad for weight in model.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)
