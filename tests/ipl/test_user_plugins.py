"""A user's own classes, in a file beside the configuration, replace each of the seven plug-ins, and a teacher."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysr.ipl.decisions import read_decisions
from raysr.pool import Pool

MINE = """
from dataclasses import dataclass
import json
import os

import torch

from raysr.config import Config, Spec
from raysr.corpus.manifest import write_jsonl
from raysr.ipl.handover import Batches, Start
from raysr.ipl.labelling.ray_recogniser import RayRecogniser
from raysr.model.model import AsrModel
from raysr.pool import EntryConfig
from raysr.teachers.base import TeacherOutput


class MyTeacher:
    class Config(Config):
        says: str = "one two"

    name, version = "mine", "1"

    def __init__(self, config, context):
        self.says = config.says

    def transcribe(self, waveforms):
        return [TeacherOutput(text=f"{self.says} {os.getpid()}") for _ in waveforms]


class Plugin:
    def __init__(self, config, context):
        self.config, self.context = config, context
        with open(context.folder / "mine.jsonl", "a") as file:
            file.write(json.dumps(type(self).__name__) + "\\n")


class MySelector(Plugin):
    class Config(Config):
        first: int = 3

    def __call__(self, cycle, unlabelled):
        return list(unlabelled)[: self.config.first] if cycle else []


class MyBuilder(Plugin):
    def __call__(self, pool):
        return [Spec(kind="mine:MyTeacher", says="two three")]


class MyRecogniser(RayRecogniser):
    def __init__(self, config, context):
        super().__init__(config, context)
        Plugin.__init__(self, config, context)


class MyFilter(Plugin):
    def __call__(self, predictions):
        return {p.id: "mine says no" for p in predictions[:1]}


class MyBatcher(Plugin):
    def __call__(self, kept, labelled):
        write_jsonl(self.context.folder / "mine-labelled.jsonl", labelled)
        return Batches(self.context.folder / "mine-labelled.jsonl", None, 1.0)


class MyInitializer(Plugin):
    def __call__(self, pool):
        return Start(parents=("mine",))


class MyTrainer(Plugin):
    def __call__(self, start, batches):
        c = self.context
        tokeniser = c.materials.tokeniser(batches.utterances())
        model = AsrModel(c.model, tokeniser.vocab_size)
        metrics = {"cycle": c.cycle, "parents": list(start.parents)}
        return c.pool.publish(c.student, model, tokeniser, None, metrics, EntryConfig(model=c.model))
"""
PLUGINS = ["selector", "builder", "recogniser", "filter", "batcher", "initializer", "trainer"]


@pytest.mark.ray
@pytest.mark.e2e
def test_all_seven_are_replaced(tmp_path: Path, tiny_config: Callable[[Path], dict[str, Any]]) -> None:
    config = tiny_config(tmp_path)
    for name in PLUGINS:
        config[name] = {"kind": f"mine:My{name.title()}"}
    config["filter"] = [config["filter"]]
    config["selector"]["first"] = 4
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    environment = {
        key: value for key, value in os.environ.items() if key not in {"RAY_ADDRESS", "PYTHONPATH"}
    }
    told = subprocess.run(
        [sys.executable, "-c", "from raysr.cli import main; main()", "ipl", "-c", str(tmp_path / "run.yaml")],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert told.returncode == 0, told.stderr[-2000:]
    cycle = tmp_path / "run" / "cycles" / "001"
    used = [json.loads(line) for line in (cycle / "mine.jsonl").open()]
    assert set(used) == {f"My{name.title()}" for name in PLUGINS}
    decisions = read_decisions(cycle / "decisions.parquet")
    # the broken file among the four fails; of the other three the filter drops one
    assert sorted(d.status for d in decisions) == ["failed", "filtered", "kept", "kept"]
    texts = [d.text for d in decisions if d.text]
    assert all(text.startswith("two three ") for text in texts)
    assert str(os.getpid()) not in {text.split()[-1] for text in texts}
    assert [d.reason for d in decisions if d.status == "filtered"] == ["mine says no"]
    student = Pool(tmp_path / "run" / "pool").get("cycle-001")
    assert student.metrics["parents"] == ["mine"]


def test_a_class_that_is_not_there_is_named(
    tmp_path: Path, tiny_config: Callable[[Path], dict[str, Any]]
) -> None:
    from raysr.errors import ConfigError
    from raysr.ipl.config import read_config

    (tmp_path / "other.py").write_text("")
    config = tiny_config(tmp_path) | {"selector": {"kind": "other:Missing"}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match="'other' has no class 'Missing'"):
        read_config(tmp_path / "run.yaml")
