"""An utterance gives the same result alone and in a batch, whatever lies in the padding."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raysr.model.model import AsrModel

MakeModel = Callable[..., AsrModel]
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.mark.parametrize("dynamic_chunk", [True, False])
@pytest.mark.parametrize("kind", ["conformer", "transformer"])
@settings(max_examples=10, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 50), min_size=1, max_size=4),
    chunk=st.sampled_from([(-1, -1), (3, 1), (5, -1)]),
)
def test_a_batch_equals_its_utterances_alone(
    make_model: MakeModel, kind: str, dynamic_chunk: bool, lengths: list[int], chunk: tuple[int, int]
) -> None:
    model = make_model(kind=kind, dynamic_chunk=dynamic_chunk)
    chunk = chunk if dynamic_chunk else (-1, -1)
    features = torch.randn(len(lengths), max(lengths) + 9, 32)
    for row, length in zip(features, lengths, strict=True):
        row[length:] = float("nan")
    together = model.encode(features, torch.tensor(lengths), *chunk)
    for b, length in enumerate(lengths):
        alone = model.encode(features[b : b + 1, :length], torch.tensor([length]), *chunk)
        assert together.lengths[b] == alone.lengths[0] == alone.out.shape[1] == model.output_frames(length)
        torch.testing.assert_close(together.out[b, : alone.out.shape[1]], alone.out[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3, 1.0])
def test_the_loss_of_a_batch_is_the_mean_of_its_utterances(
    make_model: MakeModel, batch: Batch, ctc_weight: float
) -> None:
    model = make_model(ctc_weight=ctc_weight)
    features, lengths, tokens, token_lengths = batch
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
