"""Every decoder learns, in both directions, under autocast, and with any weights of the losses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from raysr.errors import ConfigError
from raysr.model.config import DECODERS, ModelConfig
from raysr.model.model import AsrModel

MakeModel = Callable[..., AsrModel]
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.mark.parametrize("ctc_weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("reverse_weight", [0.0, 0.3])
@pytest.mark.parametrize("decoder", DECODERS.known)
def test_any_weights_of_the_losses_train_any_decoder(
    make_model: MakeModel, batch: Batch, decoder: str, reverse_weight: float, ctc_weight: float
) -> None:
    model = make_model(decoder=decoder, ctc_weight=ctc_weight, reverse_weight=reverse_weight).train()
    losses = model(*batch)
    losses.total.backward()
    torch.testing.assert_close(losses.total, ctc_weight * losses.ctc + (1 - ctc_weight) * losses.attention)
    assert (losses.ctc > 0) == (ctc_weight > 0)
    assert (losses.attention > 0) == (ctc_weight < 1)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("decoder", DECODERS.known)
def test_both_directions_of_a_decoder_learn_a_batch_by_heart(
    make_model: MakeModel, batch: Batch, decoder: str
) -> None:
    model = make_model(
        decoder=decoder, ctc_weight=0.0, reverse_weight=0.3, label_smoothing=0.0, dropout=0.0
    ).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        optimiser.zero_grad()
        model.loss(*batch).total.backward()
        optimiser.step()
    out, lengths = model.eval().encode(*batch[:2])
    texts = [[row[:length].tolist()] for row, length in zip(batch[2], batch[3], strict=True)]
    for reverse in (False, True):
        assert torch.cat(model.attention_log_probs(out, lengths, texts, reverse)).min() > -1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("decoder", DECODERS.known)
def test_autocast_gives_nearly_the_same_attention_loss_in_float32(
    make_model: MakeModel, batch: Batch, decoder: str, dtype: torch.dtype
) -> None:
    model = make_model(decoder=decoder, reverse_weight=0.3)
    expected = model.loss(*batch)
    with torch.autocast("cpu", dtype=dtype):
        losses = model.loss(*batch)
    assert losses.total.dtype == losses.attention.dtype == torch.float32
    torch.testing.assert_close(losses.attention, expected.attention, rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"decoder": {"kind": "ltsm"}}, "did you mean 'lstm'"),
        ({"decoder": {"heads": 3}}, "multiple of decoder.heads"),
        ({"decoder": {"location_kernel": 4}}, "odd"),
        ({"reverse_weight": 0.3}, r"reverse_weight \(0.3\) needs .* decoder.reverse_layers"),
        ({"decoder": {"reverse_layers": 1}}, "would not train"),
        ({"decoder": {"reverse_layers": 1}, "reverse_weight": 1.0}, "reverse_weight"),
    ],
)
def test_decoders_that_cannot_be_built_or_trained_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig.parse(config)


def test_the_tensors_of_published_decoders_keep_their_names(make_model: MakeModel) -> None:
    expected = {"embedding.weight", "norm.weight", "norm.bias", "output.weight", "output.bias"}
    for layer in (
        "self_norm",
        "self_attention.projection",
        "self_attention.output",
        "cross_norm",
        "cross_attention.query",
        "cross_attention.key_value",
        "cross_attention.output",
        "feed_forward.norm",
        "feed_forward.expand",
        "feed_forward.contract",
    ):
        expected |= {f"blocks.0.{layer}.weight", f"blocks.0.{layer}.bias"}
    names = {name for name in make_model().state_dict() if "decoder" in name}
    assert names == {f"decoder.{name}" for name in expected}
