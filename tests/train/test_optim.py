"""The optimisers on real ranks: what is shared out adds up to AdamW, and training goes on exactly from a checkpoint."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import AdamW, Optimizer

from raysr.config import Spec
from raysr.model.config import DecoderConfig, EncoderConfig, ModelConfig
from raysr.model.model import AsrModel
from raysr.train.averaging import MovingAverage
from raysr.train.checkpoint import save_weights
from raysr.train.exchange.alone import Alone
from raysr.train.exchange.base import EXCHANGES, Exchange, ExchangeContext, Loss
from raysr.train.job import OptimiserConfig
from raysr.train.onebit_adam import OneBitAdam
from raysr.train.optim import (
    ShardedAdamW,
    build_optimiser,
    load_own_state,
    load_shared_state,
    own_state,
    shared_state,
)
from raysr.train.step import Stepper
from tests.train.ranks import on_ranks

STEPS, STOP, BAD, FREEZE = 7, 4, 5, 2
KINDS = ("adamw", "zero", "onebit_adam")
SMALL = {"dim": 32, "layers": 2, "dropout": 0.0, "subsampling_channels": 8}
VOCABULARY = 40


def momenta_of_one() -> bool:
    """Say whether a rank by itself keeps the errors of its compression where it is to compress."""
    model = student()
    optimiser = build_optimiser(model, OptimiserConfig(kind="onebit_adam", freeze_step=1), compresses=True)
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimiser.step()
    error = own_state(optimiser)["mean"]["error"]
    return error is not None and error.numel() >= sum(p.numel() for p in model.parameters())


def test_what_a_rank_would_keep_among_others_can_be_seen_on_one() -> None:
    assert on_ranks(1, momenta_of_one) == [True]


def student(encoder: str = "conformer") -> AsrModel:
    torch.manual_seed(0)
    model = ModelConfig(
        mel_bins=16,
        encoder=EncoderConfig(kind=encoder, **SMALL),
        decoder=DecoderConfig(dropout=0.0),
    )
    return AsrModel(model, VOCABULARY).train()


def stepper(kind: str, encoder: str = "conformer", scale: float | None = None) -> Stepper:
    model = student(encoder)
    context = ExchangeContext(model, torch.device("cpu"))
    many = dist.is_initialized()
    exchange: Exchange = EXCHANGES.build(Spec(kind="none"), context) if many else Alone(model)
    config = OptimiserConfig(kind=kind, freeze_step=FREEZE, weight_decay=0.1)
    optimiser = build_optimiser(model, config, exchange.traffic)
    scaler = torch.amp.GradScaler("cpu", enabled=scale is not None, init_scale=scale or 1.0)
    return Stepper(model, exchange, optimiser, lambda step: 1e-3 * (1 + step), scaler, clip=1.0)


def loss_of(step: int, factor: float = 1.0) -> Loss:
    draws = torch.Generator().manual_seed(100 * step + (dist.get_rank() if dist.is_initialized() else 0))
    features = torch.randn(2, 48, 16, generator=draws)
    tokens = torch.randint(3, VOCABULARY, (2, 4), generator=draws)
    lengths, token_lengths = torch.tensor([48, 40]), torch.tensor([4, 3])

    def loss(module: Any) -> Tensor:
        context = torch.Generator().manual_seed(step)
        return factor * module(features, lengths, tokens, token_lengths, context).total

    return loss


def weights(of: Stepper) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in of.model.state_dict().items()}


def trained(training: Stepper, steps: int, bad: int | None = None) -> list[dict[str, Tensor]]:
    """Return the weights after each step; the gradients of one may be infinite on the last rank."""
    trail = []
    for step in range(training.steps, steps):
        is_bad = step == bad and dist.get_rank() == dist.get_world_size() - 1
        training([loss_of(step, float("inf") if is_bad else 1.0)])
        trail.append(weights(training))
    return trail


def from_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True, map_location="cpu")


def everywhere(value: Any) -> Any:
    """Return what the first rank has, as a file that all ranks read would bring it."""
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def held_bytes(optimiser: Optimizer) -> int:
    """Return the bytes of all tensors that an optimiser, or the one inside it, keeps."""
    states = [*optimiser.state.values()]
    states += [*optimiser.optim.state.values()] if isinstance(optimiser, ShardedAdamW) else []
    return sum(tensor.nbytes for state in states for tensor in state.values())


def resumed(kind: str) -> dict[str, Any]:
    """Stop a training, go on with it, and go on with another one from the state that it had when it stopped."""
    straight = stepper(kind)
    there = trained(straight, STOP)[-1]
    shared, own = shared_state(straight.optimiser), own_state(straight.optimiser)
    trail = trained(straight, STEPS, BAD)
    again = stepper(kind)
    again.model.load_state_dict(there)
    shared = everywhere(shared)
    load_shared_state(again.optimiser, from_a_file(shared))
    load_own_state(again.optimiser, from_a_file(own))
    again.steps = STOP
    loaded_bytes = held_bytes(again.optimiser)
    trail_again = trained(again, STEPS, BAD)
    return {
        "stopped": there,
        "shared": shared,
        "own": own,
        "trails": (trail, trail_again),
        "bytes": (loaded_bytes, held_bytes(again.optimiser), held_bytes(straight.optimiser)),
        "skipped": (straight.skipped, again.skipped),
    }


def saved_by(training: Stepper, folder: str) -> bool:
    """Return whether the weights come back from a file of a checkpoint, wherever they lie in memory."""
    path = Path(folder) / f"{dist.get_rank()}.safetensors"
    save_weights(path, training.model.state_dict())
    return all(torch.equal(load_file(path)[name], tensor) for name, tensor in weights(training).items())


def scenarios(folder: str) -> dict[str, Any]:
    results: dict[str, Any] = {kind: resumed(kind) for kind in KINDS}
    for kind in ("adamw", "zero"):
        for encoder in ("conformer", "lstm"):
            training = stepper(kind, encoder)
            average = MovingAverage(training.model, 0.9)
            trail = []
            for step in range(STEPS):
                trail += trained(training, step + 1)
                average.update(training.model)
            traffic = training.exchange.traffic
            results[kind, encoder] = {
                "trail": trail,
                "average": average.state_dict(),
                "traffic": (traffic.payload, traffic.wire),
                "saved": saved_by(training, folder),
                "places": len({p.untyped_storage().data_ptr() for p in training.model.parameters()}),
            }
        scaled = stepper(kind, scale=2.0**127)
        trained(scaled, 20)
        results[kind, "scaled"] = weights(scaled), scaled.skipped, scaled.scaler.get_scale()
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    return on_ranks(2, scenarios, str(tmp_path_factory.mktemp("weights")))


def same(first: Any, second: Any) -> bool:
    """Return whether nested states are the same, bit for bit."""
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    return bool(first == second)


@pytest.mark.parametrize("encoder", ["conformer", "lstm"])
def test_zero_takes_the_steps_of_adamw(ranks: Any, encoder: str) -> None:
    for rank in ranks:
        assert same(rank["zero", encoder]["trail"], ranks[0]["adamw", encoder]["trail"])
        assert same(rank["zero", encoder]["average"], ranks[0]["adamw", encoder]["average"])
        assert rank["zero", encoder]["saved"]
    first, last = (ranks[0]["adamw", encoder]["trail"][step] for step in (0, -1))
    assert any(not torch.equal(first[name], last[name]) for name in first)


def test_zero_shares_out_the_states(ranks: Any) -> None:
    whole = ranks[0]["adamw"]["bytes"][-1]
    assert whole == sum(2 * p.nbytes + 4 for p in student().parameters())
    for rank in ranks:
        assert all(0.45 * whole < size <= 0.55 * whole for size in rank["zero"]["bytes"])
    assert sum(rank["zero"]["bytes"][-1] for rank in ranks) == whole


def test_zero_sends_its_share_of_the_weights_besides_the_gradients(ranks: Any) -> None:
    numbers = sum(p.numel() for p in student().parameters())
    plain = ranks[0]["adamw", "conformer"]["traffic"]
    assert plain == (STEPS * 4 * numbers, STEPS * 4 * numbers)
    wire = [rank["zero", "conformer"]["traffic"][1] - plain[1] for rank in ranks]
    assert sum(wire) == STEPS * 4 * numbers
    assert [rank["zero", "conformer"]["traffic"][0] - plain[0] for rank in ranks] == wire


def test_a_share_is_one_piece_of_memory_unless_there_are_lstms(ranks: Any) -> None:
    parameters = len(list(student("lstm").parameters()))
    assert ranks[0]["zero", "conformer"]["places"] == 2
    assert ranks[0]["zero", "lstm"]["places"] == ranks[0]["adamw", "lstm"]["places"] == parameters


def test_zero_goes_with_scaled_losses(ranks: Any) -> None:
    wanted, skipped, scale = ranks[0]["adamw", "scaled"]
    assert 0 < skipped < 20
    assert scale < 2.0**127
    for rank in ranks:
        assert same(rank["zero", "scaled"], (wanted, skipped, scale))


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_on_exactly_from_a_checkpoint(ranks: Any, kind: str) -> None:
    for rank in ranks:
        straight, again = rank[kind]["trails"]
        assert same(straight, again)
        assert same(straight, ranks[0][kind]["trails"][0])
        assert rank[kind]["skipped"] == (1, 1)
        assert same(straight[BAD - STOP], straight[BAD - STOP - 1])
        assert not same(straight[-1], straight[-2])


def test_a_checkpoint_of_zero_is_one_of_adamw(ranks: Any) -> None:
    assert same(ranks[0]["zero"]["shared"], ranks[0]["adamw"]["shared"])
    assert ranks[0]["zero"]["own"] == {}


def test_what_is_a_ranks_own_are_the_errors_of_compression(ranks: Any) -> None:
    found = ranks[0]["onebit_adam"]
    assert found["shared"].keys() == {"state", "param_groups", "steps"}
    errors = [rank["onebit_adam"]["own"]["mean"] for rank in ranks]
    assert not torch.equal(errors[0]["error"], errors[1]["error"])
    assert all(error["own_error"].any() for error in errors)


@pytest.mark.parametrize("kind", KINDS)
def test_another_number_of_ranks_goes_on_with_what_is_shared(ranks: Any, kind: str) -> None:
    found, alone = ranks[0][kind], stepper(kind)
    alone.model.load_state_dict(found["stopped"])
    load_shared_state(alone.optimiser, from_a_file(found["shared"]))
    assert same(shared_state(alone.optimiser), found["shared"])
    alone.steps = STOP
    trail = trained(alone, STEPS)
    assert alone.skipped == 0
    assert not same(trail[-1], found["stopped"])
    assert trail[-1]["ctc.linear.weight"].isfinite().all()


def taken_up(path: str) -> list[Any]:
    """Return what two optimisers have in common after each has loaded its state."""
    found = []
    for kind, state in torch.load(path, weights_only=True).items():
        training = stepper(kind)
        load_shared_state(training.optimiser, state)
        found.append(shared_state(training.optimiser))
    return found


def test_more_ranks_share_out_what_one_had(tmp_path: Path) -> None:
    states = {}
    for kind in ("zero", "onebit_adam"):
        alone = stepper(kind)
        trained(alone, STOP)
        states[kind] = shared_state(alone.optimiser)
    torch.save(states, tmp_path / "states.pt")
    first, second, third = on_ranks(3, taken_up, str(tmp_path / "states.pt"))
    assert same(first, list(states.values()))
    assert second == third == [None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_decay_in_matrices_alone(kind: str) -> None:
    model = student()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = build_optimiser(model, OptimiserConfig(kind=kind, lr=0.5, weight_decay=0.1))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimiser.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] * (0.95 if p.ndim >= 2 else 1.0))


def test_what_does_not_learn_has_no_state() -> None:
    model = student()
    model.encoder.requires_grad_(False)
    optimiser = build_optimiser(model, OptimiserConfig())
    held = [p for group in optimiser.param_groups for p in group["params"]]
    assert len(held) == sum(not name.startswith("encoder.") for name, _ in model.named_parameters())


def test_by_itself_a_rank_shares_and_compresses_nothing() -> None:
    assert type(build_optimiser(student(), OptimiserConfig(kind="zero"))) is AdamW
    one_bit, adamw = stepper("onebit_adam"), stepper("adamw")
    assert isinstance(one_bit.optimiser, OneBitAdam)
    for mine, wanted in zip(trained(one_bit, FREEZE), trained(adamw, FREEZE), strict=True):
        torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=1e-4)
    assert own_state(one_bit.optimiser) == {"mean": {}}
