"""The moving average of weights against its rule written out, and its way through a file."""

from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from raysr.model.config import EncoderConfig, ModelConfig
from raysr.model.model import AsrModel
from raysr.train.averaging import MovingAverage
from raysr.train.checkpoint import save_weights


def moved(model: nn.Module, step: int) -> None:
    draws = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=draws))


def averaged_in_float64(weights: list[Tensor], decay: float) -> Tensor:
    average = weights[0].double()
    for n, now in enumerate(weights[1:], start=1):
        kept = min(decay, (1 + n) / (10 + n))
        average = kept * average + (1 - kept) * now.double()
    return average


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 0.9999), st.integers(1, 60))
def test_it_is_the_rule_of_tensorflow(decay: float, updates: int) -> None:
    model, trail = nn.Linear(3, 2), []
    average = MovingAverage(model, decay)
    for step in range(updates):
        moved(model, step)
        average.update(model)
        trail.append(model.weight.detach().clone())
    wanted = averaged_in_float64(trail, decay)
    torch.testing.assert_close(average.state_dict()["weight"].double(), wanted, atol=1e-5, rtol=1e-5)
    assert average.updates == updates


def test_in_the_long_run_the_decay_is_the_one_that_was_asked_for() -> None:
    model = nn.Linear(1, 1)
    average = MovingAverage(model, 0.9)
    with torch.no_grad():
        for value in [0.0] * 100 + [1.0] * 5:
            model.weight.fill_(value)
            average.update(model)
    torch.testing.assert_close(average.model.weight.item(), 1 - 0.9**5)


def test_before_any_update_it_is_the_model_itself_and_does_not_learn() -> None:
    model = nn.Linear(3, 2)
    average = MovingAverage(model, 0.99)
    before = model.weight.detach().clone()
    moved(model, 0)
    assert torch.equal(average.state_dict()["weight"], before)
    assert not any(p.requires_grad for p in average.model.parameters())
    assert all(p.requires_grad for p in model.parameters())


def test_it_goes_on_exactly_from_a_file(tmp_path: Path) -> None:
    def steps(average: MovingAverage, model: nn.Module, numbers: range) -> MovingAverage:
        for step in numbers:
            moved(model, step)
            average.update(model)
        return average

    model = nn.Linear(3, 2)
    straight = steps(MovingAverage(model, 0.999), model, range(7))
    save_weights(tmp_path / "ema.safetensors", straight.state_dict())
    again_model = nn.Linear(3, 2)
    again_model.load_state_dict(model.state_dict())
    again = MovingAverage(again_model, 0.999)
    again.load(load_file(tmp_path / "ema.safetensors"), straight.updates)
    steps(straight, model, range(7, 12))
    steps(again, again_model, range(7, 12))
    assert again.updates == straight.updates == 12
    for name, tensor in straight.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_it_is_a_student_with_the_buffers_of_the_one_that_is_trained() -> None:
    model = AsrModel(ModelConfig(mel_bins=16, encoder=EncoderConfig(dim=16, layers=1)), 20)
    average = MovingAverage(model, 0.9)
    model.set_cmvn(torch.full((16,), 3.0), torch.full((16,), 0.5))
    average.update(model)
    moved(model, 0)
    average.update(model)
    student = AsrModel(model.config, 20)
    student.load_state_dict(average.state_dict())
    assert torch.equal(student.cmvn_mean, torch.full((16,), 3.0))
    assert torch.equal(student.cmvn_inverse_std, torch.full((16,), 0.5))
    assert not torch.equal(student.ctc.linear.weight, model.ctc.linear.weight)
