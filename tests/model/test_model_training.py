"""The model learns: gradients everywhere and finite, repeatable, under autocast, and down the loss goes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from raysr.errors import ConfigError
from raysr.model.config import ModelConfig
from raysr.model.model import AsrModel

MakeModel = Callable[..., AsrModel]
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.mark.parametrize("ctc_weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["conformer", "transformer"])
def test_every_parameter_gets_a_finite_gradient(
    make_model: MakeModel, batch: Batch, kind: str, ctc_weight: float
) -> None:
    model = make_model(kind=kind, ctc_weight=ctc_weight).train()
    losses = model(*batch)
    losses.total.backward()
    torch.testing.assert_close(losses.total, ctc_weight * losses.ctc + (1 - ctc_weight) * losses.attention)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("ctc_weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["conformer", "transformer"])
def test_a_small_batch_can_be_learnt_by_heart(
    make_model: MakeModel, batch: Batch, kind: str, ctc_weight: float
) -> None:
    model = make_model(kind=kind, ctc_weight=ctc_weight, label_smoothing=0.0, dropout=0.0).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    first = model.loss(*batch, generator).total.item()
    for _ in range(60):
        optimiser.zero_grad()
        model.loss(*batch, generator).total.backward()
        optimiser.step()
    assert model.eval().loss(*batch).total.item() < 0.2 * first


def test_the_generator_decides_the_chunk_of_a_training_batch(make_model: MakeModel, batch: Batch) -> None:
    model = make_model(dropout=0.0, full_context_share=0.0).train()
    losses = {
        seed: [model.loss(*batch, torch.Generator().manual_seed(seed)).total.item() for _ in range(2)]
        for seed in range(5)
    }
    assert all(first == second for first, second in losses.values())
    assert len(set(map(tuple, losses.values()))) > 1


def test_autocast_gives_nearly_the_same_loss_in_float32(make_model: MakeModel, batch: Batch) -> None:
    model = make_model()
    expected = model.loss(*batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.loss(*batch)
        log_probs = model.ctc_log_probs(model.encode(*batch[:2]).out)
    assert log_probs.dtype == losses.ctc.dtype == losses.attention.dtype == torch.float32
    torch.testing.assert_close(losses.ctc, expected.ctc, rtol=0.05, atol=0)
    torch.testing.assert_close(losses.attention, expected.attention, rtol=0.05, atol=0)


def test_cmvn_is_part_of_the_weights(make_model: MakeModel, batch: Batch) -> None:
    model, fresh = make_model(), AsrModel(make_model().config, 7)
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh.eval().encode(*batch[:2]).out, model.encode(*batch[:2]).out)
    mean, inverse_std = torch.linspace(-1, 1, 32), torch.linspace(0.5, 2, 32)
    torch.testing.assert_close(model.normalise(mean + 1 / inverse_std), torch.ones(32))


def test_latency_counts_from_the_first_sample_of_a_frame_to_the_last_of_its_chunk(
    make_model: MakeModel,
) -> None:
    model = make_model()
    waits = []
    for frame in range(16):
        last_fbank_frame = 4 * 15 + 6
        waits.append(last_fbank_frame * 10 + 25 - frame * 4 * 10)
    latency = model.latency(16)
    assert latency.worst_ms == max(waits)
    assert latency.mean_ms == sum(waits) / len(waits)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"kind": "conformr"}, "conformer"),
        ({"dim": 130}, "multiple"),
        ({"dynamic_chunk": False, "kernel": 8}, "odd"),
        ({"head": 4}, "heads"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_by_its_configuration(
    encoder: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig.parse({"encoder": encoder})
