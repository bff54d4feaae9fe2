"""Recipes can be read and say what they claim; what changes from a cycle on reaches it, and is checked first."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from raysr.errors import ConfigError
from raysr.ipl.config import RunConfig, read_config
from raysr.ipl.cycle import run_cycles
from raysr.ipl.progress import Progress
from raysr.ipl.run import open_run
from raysr.pool import Pool

TinyConfig = Callable[[Path], dict[str, Any]]
CONF = Path(__file__).parents[2] / "jobs" / "conf"


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_can_be_read_and_its_run_goes_on(path: Path) -> None:
    config = read_config(path)
    assert RunConfig.parse(yaml.safe_load(yaml.safe_dump(config.dump()))) == config
    assert f"--config jobs/conf/{path.relative_to(CONF)}" in path.read_text()


def test_a_noisy_student_grows_and_hears_more_noise() -> None:
    config = read_config(CONF / "policies" / "noisy_student.yaml")
    first, second, third = (config.at(cycle) for cycle in range(3))
    assert config.at(9) == third
    assert [c.model.encoder.layers for c in (first, second, third)] == [4, 6, 6]
    assert [c.model.encoder.dropout for c in (first, second, third)] == [0, 0.1, 0.1]
    masks = [c.trainer.options["augment"]["spec"]["time_masks"] for c in (first, second, third)]
    assert masks == [0, 1, 2]
    assert second.trainer.options["steps_by_cycle"] == first.trainer.options["steps_by_cycle"]


def base(**changes: Any) -> dict[str, Any]:
    return {"run": {"dir": "x"}, "data": {"demo": True}, **changes}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({1: {"tokenizer": {"kind": "bpe"}}}, "from_cycle.1.tokenizer: only these may change"),
        ({1: {"selector": {"first_cycle": 2}}}, "from_cycle.1.selector"),
        ({2: {"trainer": {"stepps": 3}}}, "did you mean 'steps'"),
        (
            {2: {"model": {"encoder": {"layers": 7}}}},
            r"from_cycle\.2\.model: .*initializer: \{kind: scratch\}",
        ),
        ({1: {"model": {"encoder": {"heads": 2}}}}, r"from_cycle\.1\.model: .*shapes or heads"),
    ],
)
def test_changes_that_cannot_work_are_told_when_they_are_read(changes: dict[int, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        RunConfig.parse(base(from_cycle=changes))


def test_dropout_may_change_while_weights_go_on() -> None:
    config = RunConfig.parse(base(from_cycle={1: {"model": {"encoder": {"dropout": 0.3}}}}))
    assert config.at(1).model.encoder.dropout == 0.3
    assert config.at(0).model.encoder.dropout == config.model.encoder.dropout != 0.3


def test_another_kind_takes_the_place_of_the_whole_part() -> None:
    config = RunConfig.parse(
        base(
            builder={"kind": "average", "newest": 5},
            from_cycle={
                1: {"builder": {"kind": "best"}, "filter": []},
                3: {"builder": {"metric": "dev_wer_greedy"}},
            },
        )
    )
    assert config.at(1).builder.options == {"metric": "dev_wer"}
    assert config.at(3).builder.options == {"metric": "dev_wer_greedy"}
    assert (config.at(0).filter != [], config.at(1).filter) == (True, [])


def test_a_larger_student_starts_afresh_and_labels_later(tmp_path: Path, tiny_config: TinyConfig) -> None:
    config = tiny_config(tmp_path)
    config["run"]["cycles"] = 3
    config["from_cycle"] = {
        1: {"model": {"encoder": {"layers": 2}}, "initializer": {"kind": "scratch"}},
        2: {"initializer": {"kind": "previous"}},
    }
    with open_run(RunConfig.parse(config), Progress(quiet=True), use_ray=False) as run:
        run_cycles(run)
    small, large, last = Pool(tmp_path / "run" / "pool").entries()
    assert [e.config().model.encoder.layers for e in (small, large, last)] == [1, 2, 2]
    assert [list(e.metrics["parents"]) for e in (small, large, last)] == [[], [], ["cycle-001"]]
    teachers = json.loads((tmp_path / "run/cycles/002/teachers.json").read_text())
    assert teachers[0]["entries"] == [str(large.path.absolute())]
    mean = load_file(small.weights)["cmvn_mean"]
    assert not torch.equal(mean, torch.zeros_like(mean))
