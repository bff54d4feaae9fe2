"""A training on real ranks goes on where it was: exactly by as many of them, in a defined way by others."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raysr.errors import RunError
from raysr.model.config import ModelConfig
from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser
from raysr.train import checkpoint, loop
from raysr.train.checkpoint import save_weights
from raysr.train.job import TrainJob
from tests.train.jobs import changed, small_job
from tests.train.ranks import on_ranks
from tests.train.recorder import Recorder

HALF = 4
OPTIONS: Mapping[str, dict[str, Any]] = {
    "none": {"comm": {"kind": "none", "bucket_mb": 0.02}, "ema_decay": 0.9},
    "pieces": {"comm": {"kind": "bf16"}, "micro_batch_seconds": 3.0},
    "powersgd": {"comm": {"kind": "powersgd", "rank": 1, "start": 2}},
    "8bit": {"comm": {"kind": "8bit", "start": 2}},
    "diloco": {"comm": {"kind": "diloco", "start": 1, "every": 5}, "ema_decay": 0.9},
    "zero": {"optimiser": {"kind": "zero"}},
    "onebit_adam": {"optimiser": {"kind": "onebit_adam", "freeze_step": 2}},
    "fp16": {"precision": "fp16", "emulate_precision": True, "steps": 28, "checkpoint_every": 20},
}


def weights(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def digest(model: torch.nn.Module) -> str:
    return hashlib.sha256(weights(model).numpy().tobytes()).hexdigest()


def trained(job: TrainJob, folder: Path, resume: Path | None = None) -> tuple[str, list[float]]:
    """Return the digest of the final weights, and the losses of all steps."""
    recorder = Recorder(folder)
    found = digest(loop.train(job, recorder, resume).model)
    return found, recorder.losses


def unbroken_and_resumed(job: TrainJob, folder: Path) -> dict[str, Any]:
    outcome: dict[str, Any] = {}
    for name, options in OPTIONS.items():
        this = changed(job, **options)
        whole, losses = trained(this, folder / name)
        again, after = trained(
            this, folder / f"{name} again", folder / name / str(this.train.checkpoint_every)
        )
        outcome[name] = {"whole": whole, "again": again, "losses": losses, "after": after}
    return outcome


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    return small_job(tmp_path_factory.mktemp("resume"), steps=8, checkpoint_every=HALF, batch_seconds=12.0)


@pytest.fixture(scope="module")
def outcomes(job: TrainJob, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of three ranks saw: with two, any order of a sum rounds alike."""
    return on_ranks(3, unbroken_and_resumed, job, tmp_path_factory.mktemp("three"))


@pytest.mark.parametrize("name", OPTIONS)
def test_losses_and_weights_after_a_resume_are_those_of_an_unbroken_training_bit_for_bit(
    name: str, outcomes: list[dict[str, Any]]
) -> None:
    for rank in outcomes:
        losses, after = rank[name]["losses"], rank[name]["after"]
        assert len(losses) == 2 * HALF or name == "fp16"
        assert after == losses[-len(after) :]
        assert math.isfinite(losses[-1])
        assert rank[name]["again"] == rank[name]["whole"]


@pytest.mark.parametrize("name", OPTIONS)
def test_replicas_end_bit_equal(name: str, outcomes: list[dict[str, Any]]) -> None:
    assert len({rank[name]["whole"] for rank in outcomes}) == 1


def handed_over(job: TrainJob, given: Path, folder: Path) -> dict[str, Any]:
    """Go on from the checkpoints of other ranks; return each training's digest, seen steps and last loss."""
    outcome: dict[str, Any] = {}
    for name, options in OPTIONS.items():
        recorder = Recorder(folder / name)
        this = changed(job, **options)
        model = loop.train(this, recorder, given / name / str(this.train.checkpoint_every)).model
        rows = recorder.rows
        outcome[name] = (digest(model), [row.step for row in rows], rows[-1].loss, rows[0].learning_rate)
    return outcome


@pytest.fixture(scope="module")
def by_two(job: TrainJob, outcomes: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    given = tmp_path_factory.getbasetemp() / "three0"
    assert (given / "none" / str(HALF)).is_dir()
    return on_ranks(2, handed_over, job, given, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("name", OPTIONS)
def test_fewer_ranks_go_on_with_the_batches_that_were_left(
    name: str, by_two: list[dict[str, Any]], outcomes: list[dict[str, Any]]
) -> None:
    (one, steps, loss, _), (other, *_) = (rank[name] for rank in by_two)
    assert one == other
    assert steps == ([5, 6, 7, 8] if name != "fp16" else [*range(21, 29)])
    assert loss < 2 * np.nanmax(outcomes[0][name]["losses"])


def test_a_world_of_one_goes_on_where_three_were(
    job: TrainJob, outcomes: Any, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    given = tmp_path_factory.getbasetemp() / "three0"
    for name, (_, steps, *_) in handed_over(job, given, tmp_path).items():
        assert steps[-1] - steps[0] + 1 == len(steps) in (4, 8), name


def test_replicas_that_were_apart_meet_in_their_mean(
    outcomes: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = checkpoint.read(tmp_path_factory.getbasetemp() / "three0" / "diloco" / str(HALF), 0, 2)
    replicas = [part["model"] for part in found.others]
    assert len(replicas) == 3
    assert not torch.equal(replicas[0]["ctc.linear.weight"], replicas[1]["ctc.linear.weight"])


@pytest.mark.parametrize("damage", ["progress.json", "model.safetensors", "shared.pt", "rank-00000.pt"])
def test_a_damaged_file_is_named(job: TrainJob, tmp_path: Path, damage: str) -> None:
    loop.train(job, Recorder(tmp_path))
    file = tmp_path / str(HALF) / damage
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunError, match=rf"{HALF} cannot be used: {damage} is damaged"):
        loop.train(job, Recorder(tmp_path / "again"), tmp_path / str(HALF))
    file.unlink()
    with pytest.raises(RunError, match=f"cannot be used: .*{damage}"):
        loop.train(job, Recorder(tmp_path / "again"), tmp_path / str(HALF))


def test_a_checkpoint_of_another_model_is_refused_by_name(job: TrainJob, tmp_path: Path) -> None:
    loop.train(job, Recorder(tmp_path))
    data = job.dump()
    data["model"]["encoder"]["feed_forward"] = 48
    data["init"] = str(tmp_path / "init.safetensors")
    wider = ModelConfig.parse(data["model"])
    save_weights(Path(data["init"]), AsrModel(wider, Tokeniser.load(job.tokeniser).vocab_size).state_dict())
    with pytest.raises(RunError, match=r"after step 4 is of another model: .*feed_forward"):
        loop.train(TrainJob.parse(data), Recorder(tmp_path / "again"), tmp_path / str(HALF))


def test_a_checkpoint_of_other_utterances_is_refused(job: TrainJob, tmp_path: Path) -> None:
    loop.train(job, Recorder(tmp_path))
    data = job.dump()
    data["sources"] = data["sources"][:1]
    with pytest.raises(RunError, match="of other utterances"):
        loop.train(TrainJob.parse(data), Recorder(tmp_path / "again"), tmp_path / str(HALF))
