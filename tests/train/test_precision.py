"""Mixed precision: what the hardware has, what stays float32 under autocast, and steps by scaled losses."""

import platform
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils import _pytree as pytree

from raysr.audio.background import Background, BackgroundConfig
from raysr.audio.cmvn import CmvnAccumulator
from raysr.audio.fbank import Fbank, FbankConfig, OnlineFbank
from raysr.audio.specaugment import SpecAugmentConfig, spec_augment
from raysr.audio.warp import WarpConfig, warp
from raysr.config import Spec
from raysr.errors import ConfigError
from raysr.model.config import ModelConfig
from raysr.model.distillation import WordLevel, top
from raysr.model.model import AsrModel
from raysr.train import precision
from raysr.train.averaging import MovingAverage
from raysr.train.exchange.base import EXCHANGES, ExchangeContext, Loss
from raysr.train.hooks.blocks import CODECS, CompressedMean
from raysr.train.onebit_adam import OneBitAdam
from raysr.train.step import Stepper
from tests.train.ranks import on_ranks

CPU = torch.device("cpu")
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
VOCABULARY = 40
ENCODERS = ("conformer", "transformer", "lstm", "blstm")
DECODERS = ("transformer", "lstm")
# what oneDNN needs for a type, as its documentation of data types tells (uxlfoundation.github.io/oneDNN)
FLAGS = {
    "bf16": {"avx512_bf16", "amx_bf16", "avx512bw"},
    "fp16": {"avx512_fp16", "amx_fp16", "avx_ne_convert"},
}


def chosen_together() -> list[str]:
    bests = ("bf16", "fp16", "bf16")
    precision._best = lambda device: bests[dist.get_rank()]  # as GPUs of two generations would have it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "_in_hardware", lambda name, device: True)
        chosen = precision.choose("auto", CPU)
    return [str(chosen.dtype), str(chosen.scaler.is_enabled())]


def test_all_ranks_take_what_the_oldest_of_their_devices_has() -> None:
    assert on_ranks(3, chosen_together) == [["torch.float16", "True"]] * 3


def test_auto_is_float32_on_a_cpu_and_only_fp16_scales_its_loss() -> None:
    assert precision.choose("auto", CPU).dtype is None
    for name, dtype in {"fp32": None, **HALVES}.items():
        chosen = precision.choose(name, CPU, insist=True)
        assert chosen.dtype is dtype
        assert chosen.scaler.is_enabled() is (name == "fp16")
        with chosen.autocast():
            assert torch.is_autocast_enabled("cpu") is (dtype is not None)
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is (dtype or torch.float32)


@pytest.mark.parametrize("name", HALVES)
def test_a_type_that_a_device_only_emulates_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(precision, "_in_hardware", lambda name, device: False)
    for ask in (precision.check, precision.choose):
        with pytest.raises(ConfigError, match=rf"^precision: {name} is .* set it to fp32, or to auto$"):
            ask(name, CPU)
    assert precision.choose(name, CPU, insist=True).dtype is HALVES[name]
    precision.check("auto", CPU)
    precision.check("fp32", CPU)
    with pytest.raises(ConfigError, match=r"this GPU .* set it to fp16, or to auto"):
        precision.check("bf16", torch.device("cuda", 0))


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists(), reason="flags of x86"
)
@pytest.mark.parametrize("name", HALVES)
def test_a_cpu_is_asked_for_what_it_has(name: str) -> None:
    flags = next(s for s in Path("/proc/cpuinfo").read_text().splitlines() if s.startswith("flags")).split()
    if FLAGS[name].isdisjoint(flags):
        with pytest.raises(ConfigError, match=f"precision: {name}"):
            precision.choose(name, CPU)
    else:
        assert precision.choose(name, CPU).dtype is HALVES[name]


@pytest.mark.parametrize("dtype", HALVES.values())
def test_features_and_augmentation_are_the_same_bits_under_autocast(dtype: torch.dtype) -> None:
    draws = torch.Generator().manual_seed(0)
    waveform = torch.randn(20_000, generator=draws) * 0.3

    def everything() -> Iterator[Tensor]:
        features = Fbank()(waveform)
        yield features
        online = OnlineFbank()
        yield torch.cat([online.push(piece) for piece in waveform.split(777)])
        statistics = CmvnAccumulator()
        statistics.add(features)
        yield from statistics.finish()
        lengths = torch.tensor([len(features)])
        background = BackgroundConfig(share=1.0)
        yield Background(background, FbankConfig(), 0)(
            features[None], lengths, torch.Generator().manual_seed(1)
        )
        warped, lengths = warp(features[None], lengths, WarpConfig(), torch.Generator().manual_seed(2))
        yield warped
        yield spec_augment(warped, lengths, SpecAugmentConfig(), torch.Generator().manual_seed(3))

    expected = list(everything())
    with torch.autocast("cpu", dtype=dtype):
        found = list(everything())
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype is torch.float32
        assert torch.equal(ours, theirs)


def model_of(encoder: str = "conformer", decoder: str = "transformer", dim: int = 16) -> AsrModel:
    torch.manual_seed(0)
    config = ModelConfig.parse(
        {
            "encoder": {
                "kind": encoder,
                "dim": dim,
                "layers": 3,
                "heads": 2,
                "feed_forward": 2 * dim,
                "subsampling_channels": 4,
                "dropout": 0.0,
            },
            "decoder": {
                "kind": decoder,
                "heads": 2,
                "feed_forward": 2 * dim,
                "dropout": 0.0,
                "reverse_layers": 1,
            },
            "reverse_weight": 0.3,
        }
    )
    model = AsrModel(config, VOCABULARY)
    model.set_cmvn(torch.full((80,), 12.0), torch.full((80,), 0.3))
    return model.train()


def batch_of(frames: int = 160, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    features = 12 + 3.3 * torch.randn(3, frames, 80, generator=draws)
    lengths = torch.tensor([frames, frames * 2 // 3, frames // 2])
    tokens = torch.randint(3, VOCABULARY, (3, frames // 16), generator=draws)
    return features, lengths, tokens, lengths // 16


def context() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize(("encoder", "decoder"), [*product(ENCODERS, DECODERS)])
def test_cmvn_and_both_losses_are_float32_under_autocast_and_nearly_those_without(
    encoder: str, decoder: str, name: str
) -> None:
    model, batch = model_of(encoder, decoder), batch_of()
    with torch.no_grad():
        teacher = top(torch.randn(3, batch[2].shape[1] + 1, VOCABULARY), VOCABULARY)
    words = WordLevel(teacher, 0.3)
    expected = model(*batch, context(), words)
    recurrent: list[torch.dtype] = []
    for layer in model.encoder.modules():
        if isinstance(layer, nn.LSTM):
            layer.register_forward_hook(
                lambda _, given, out: recurrent.append(pytree.tree_leaves(out)[0].dtype)
            )
    with precision.choose(name, CPU, insist=True).autocast():
        normalised = model.normalise(batch[0].half())
        log_probs = model.ctc_log_probs(model.encode(*batch[:2]).out)
        scores = model.attention_log_probs(model.encode(*batch[:2]).out, batch[1] // 4, [[[3, 4]]] * 3)
        losses = model(*batch, context(), words)
    assert torch.equal(normalised, model.normalise(batch[0].half()))
    for tensor in (normalised, log_probs, *scores, losses.ctc, losses.attention, losses.total):
        assert tensor.dtype is torch.float32
    assert set(recurrent) == ({torch.float32} if "lstm" in encoder else set())
    losses.total.backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype is torch.float32
        assert parameter.grad.isfinite().all()
    for ours, theirs in zip(losses[:3], expected[:3], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=0)


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_long_utterances_and_large_logits_have_finite_losses_near_those_in_float32(
    encoder: str, name: str
) -> None:
    model, batch = model_of(encoder), batch_of(frames=3000)
    with torch.no_grad():
        assert model.ctc is not None
        for head in (model.ctc.linear, model.decoder.output, model.reverse_decoder.output):
            head.weight.mul_(1000)
        encoded = model.encode(*batch[:2])
        logits = model.ctc.linear(encoded.out)
        expected = model(*batch, context())
    assert logits.abs().max() > 1000
    with precision.choose(name, CPU, insist=True).autocast():
        losses = model(*batch, context())
    for ours, theirs in zip(losses[:3], expected[:3], strict=True):
        assert ours.isfinite()
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=0)


STEPS, TOO_LARGE = 20, 6
KINDS: dict[str, dict[str, Any]] = {
    "none": {},
    "powersgd": {"rank": 1, "start": 2, "min_ratio": 1.0},
    "8bit": {"start": 2},
    "1bit": {"start": 2},
    "onebit_adam": {},
}


def in_halves(kind: str, name: str) -> dict[str, Any]:
    """Train with a scale that is too large in the middle; return what steps did and what is kept between them."""
    model = model_of(dim=8)
    chosen = precision.choose(name, CPU, insist=True)
    spec = Spec(kind="none") if kind == "onebit_adam" else Spec(kind=kind, **KINDS[kind])
    exchange = EXCHANGES.build(spec, ExchangeContext(model, CPU))
    optimiser = (
        OneBitAdam(model.parameters(), CompressedMean(CODECS["1bit"]()), freeze_step=3)
        if kind == "onebit_adam"
        else AdamW(model.parameters())
    )
    average = MovingAverage(model, 0.9)
    training = Stepper(model, exchange, optimiser, lambda step: 3e-3, chosen.scaler, clip=5.0)

    def loss_of(seed: int) -> Loss:
        batch = batch_of(frames=64, seed=seed)

        def loss(module: nn.Module) -> Tensor:
            with chosen.autocast():
                return module(*batch, context()).total

        return loss

    norms: list[Tensor | None] = []
    for step in range(STEPS):
        if step == TOO_LARGE and chosen.scaler.is_enabled():
            chosen.scaler.update(2.0**18)
        norms.append(training([loss_of(dist.get_rank())]))
        if norms[-1] is not None:
            with chosen.autocast():
                average.update(model)
    states = [exchange.state_dict(), optimiser.state_dict(), average.state_dict()]
    with torch.no_grad():
        after = float(loss_of(dist.get_rank())(model))
    return {
        "norms": norms,
        "skipped": training.skipped,
        "kept": [kept for kept in pytree.tree_leaves(states) if _is_real(kept)],
        "weights": torch.cat([p.detach().flatten() for p in model.parameters()]),
        "fell": float(loss_of(dist.get_rank())(model_of(dim=8))) - after,
        "scale": chosen.scaler.get_scale(),
    }


def _is_real(kept: object) -> bool:
    return isinstance(kept, Tensor) and kept.is_floating_point()


def all_in_halves() -> dict[tuple[str, str], dict[str, Any]]:
    torch.manual_seed(0)
    return {(kind, name): in_halves(kind, name) for kind, name in product(KINDS, HALVES)}


@pytest.fixture(scope="module")
def trained() -> list[dict[tuple[str, str], dict[str, Any]]]:
    return on_ranks(2, all_in_halves)


@pytest.mark.parametrize(("kind", "name"), [*product(KINDS, HALVES)])
def test_ranks_that_train_in_halves_stay_one_and_what_they_keep_is_float32(
    trained: list[dict[tuple[str, str], dict[str, Any]]], kind: str, name: str
) -> None:
    first, second = (rank[kind, name] for rank in trained)
    assert torch.equal(first["weights"], second["weights"])
    for found in (first, second):
        assert found["fell"] > 0
        assert found["kept"]
        for kept in found["kept"]:
            assert kept.dtype is torch.float32
            assert kept.isfinite().all()
        assert all(norm.dtype is torch.float32 for norm in found["norms"] if norm is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scale_that_overflows_skips_steps_on_all_ranks_and_comes_down(
    trained: list[dict[tuple[str, str], dict[str, Any]]], kind: str
) -> None:
    for rank in trained:
        found, in_bf16 = rank[kind, "fp16"], rank[kind, "bf16"]
        skipped = [step for step, norm in enumerate(found["norms"]) if norm is None]
        assert found["skipped"] == len(skipped) > 0
        assert TOO_LARGE in skipped
        assert max(skipped) < STEPS - 1
        assert found["scale"] < 2.0**18
        assert in_bf16["skipped"] == 0
    assert trained[0][kind, "fp16"]["skipped"] == trained[1][kind, "fp16"]["skipped"]
