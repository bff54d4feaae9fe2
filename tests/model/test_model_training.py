"""The model learns: gradients everywhere and finite, repeatable, under autocast, and down the loss goes."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from raysr.config import apply_overrides, read_yaml
from raysr.errors import ConfigError
from raysr.model.config import ModelConfig
from raysr.model.model import AsrModel

MakeModel = Callable[..., AsrModel]
Batch = tuple[Tensor, Tensor, Tensor, Tensor]
RECIPES = Path(__file__).parents[2] / "jobs" / "conf"


def learnt(model: AsrModel, batch: Batch, steps: int) -> tuple[float, float]:
    """Train on one batch and return the loss before and after."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    first = model.loss(*batch, generator).total.item()
    for _ in range(steps):
        optimiser.zero_grad()
        model.loss(*batch, generator).total.backward()
        optimiser.step()
    return first, model.eval().loss(*batch).total.item()


@pytest.mark.parametrize("ctc_weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["conformer", "transformer", "lstm", "blstm"])
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
@pytest.mark.parametrize("kind", ["conformer", "transformer", "lstm", "blstm"])
def test_a_small_batch_can_be_learnt_by_heart(
    make_model: MakeModel, batch: Batch, kind: str, ctc_weight: float
) -> None:
    model = make_model(kind=kind, ctc_weight=ctc_weight, label_smoothing=0.0, dropout=0.0).train()
    first, last = learnt(model, batch, steps=60)
    assert last < 0.2 * first


@pytest.mark.parametrize("kind", ["full", "left", "chunk", "flow", "dynamic"])
def test_every_attention_learns(make_model: MakeModel, batch: Batch, kind: str) -> None:
    model = make_model(attention={"kind": kind, "chunk": 3}, label_smoothing=0.0, dropout=0.0).train()
    first, last = learnt(model, batch, steps=40)
    assert last < 0.5 * first


def test_the_generator_decides_the_chunk_of_a_training_batch(make_model: MakeModel, batch: Batch) -> None:
    model = make_model(dropout=0.0, attention={"full_context_share": 0.0}).train()
    losses = {
        seed: [model.loss(*batch, torch.Generator().manual_seed(seed)).total.item() for _ in range(2)]
        for seed in range(5)
    }
    assert all(first == second for first, second in losses.values())
    assert len(set(map(tuple, losses.values()))) > 1


@pytest.mark.parametrize("kind", ["conformer", "transformer", "lstm", "blstm"])
def test_autocast_gives_nearly_the_same_loss_in_float32(
    make_model: MakeModel, batch: Batch, kind: str
) -> None:
    model = make_model(kind=kind)
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


@pytest.mark.parametrize(
    ("encoder", "chunk", "lookahead"),
    [
        ({}, 16, 0),
        ({"kind": "lstm"}, 5, 0),
        ({"attention": {"kind": "left"}}, 1, 0),
        ({"attention": {"kind": "flow", "right_chunks": 3}, "layers": 2}, 4, 24),
    ],
)
def test_latency_counts_from_the_first_sample_of_a_frame_to_the_last_one_it_waits_for(
    make_model: MakeModel, encoder: dict[str, Any], chunk: int, lookahead: int
) -> None:
    model = make_model(**encoder)
    waits = []
    for frame in range(chunk):
        last_fbank_frame = 4 * (chunk - 1 + lookahead) + 6
        waits.append(last_fbank_frame * 10 + 25 - frame * 4 * 10)
    latency = model.latency(chunk)
    assert latency.worst_ms == max(waits)
    assert latency.mean_ms == sum(waits) / len(waits)


@pytest.mark.parametrize(
    ("encoder", "chunk"), [({"kind": "blstm"}, 16), ({"attention": {"kind": "full"}}, 16), ({}, -1)]
)
def test_whole_utterances_take_for_ever(make_model: MakeModel, encoder: dict[str, Any], chunk: int) -> None:
    assert make_model(**encoder).latency(chunk) == (math.inf, math.inf)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"kind": "conformr"}, "conformer"),
        ({"kind": "builtins:dict"}, "no raysr.model.encoder.Encoder"),
        ({"dim": 130}, "multiple"),
        ({"kind": "transformer", "dim": 130}, "multiple"),
        ({"kind": "blstm", "dim": 129}, "even"),
        ({"kind": "blstm", "subsampling": 8, "layers": 3}, "4 layers or more"),
        ({"attention": {"kind": "full"}, "kernel": 8}, "odd"),
        ({"attention": {"kind": "flwo"}}, "flow"),
        ({"attention": {"kind": "flow", "right_chunks": 0}}, "right_chunks"),
        ({"attention": {"kind": "chunk", "dynamic_left": True}}, "dynamic"),
        ({"attention": {"left_chunks": 3, "dynamic_left": True}}, "left_chunks"),
        ({"head": 4}, "heads"),
        ({"attention": {"max_chunks": 4}}, "max_chunk"),
        ({"attention": {"min_chunk": 8, "max_chunk": 4}}, "min_chunk"),
        ({"attention": {"kind": "dynamic"}, "kernel": 8}, "odd"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_by_its_configuration(
    encoder: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig.parse({"encoder": encoder})


@pytest.mark.parametrize("kind", ["conformer", "transformer", "lstm", "blstm"])
@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_can_have_every_encoder(recipe: Path, kind: str) -> None:
    overridden = apply_overrides(read_yaml(recipe), [f"model.encoder.kind={kind}"])
    model = AsrModel(ModelConfig.parse(overridden["model"]), 30)
    assert model.output_frames(100) == model.encode(torch.randn(1, 100, 80), torch.tensor([100])).out.shape[1]
