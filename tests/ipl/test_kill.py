"""``kill -9`` of the driver, in the middle of labelling and again of training: the rerun finishes, nothing is lost."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysr.ipl.decisions import read_decisions

SLOW_TEACHER = """
import time
from raysr.config import Config
from raysr.teachers.base import TeacherOutput


class Slow:
    class Config(Config):
        log: str

    name, version = "slow", "1"

    def __init__(self, config, context):
        self.log = config.log

    def transcribe(self, waveforms):
        time.sleep(0.4 * len(waveforms))
        with open(self.log, "a") as file:
            file.write("".join(f"{w[:4000].sum():.6f}\\n" for w in waveforms))
        return [TeacherOutput(text="one", normalised_score=-1.0) for _ in waveforms]
"""
BLOCK = 2
CANARY = 6  # the dev set of the tiny configuration


class Driver:
    """The run as a process of its own."""

    def __init__(self, config: Path) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in {"RAY_ADDRESS", "PYTHONPATH"}}
        command = [sys.executable, "-c", "from raysr.cli import main; main()", "ipl", "-c", str(config)]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def kill_when(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 200
        while not reached():
            assert self.process.poll() is None, self.process.communicate()[0][-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.process.kill()
        self.process.communicate()

    def finish(self) -> None:
        told, _ = self.process.communicate(timeout=250)
        assert self.process.returncode == 0, told[-2000:]


@pytest.mark.ray
@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_killed_in_labelling_and_in_training(
    tmp_path: Path, tiny_config: Callable[[Path], dict[str, Any]], make_corpus: Callable[..., Path]
) -> None:
    config = tiny_config(tmp_path)
    count = 24
    config["data"]["unlabelled"] = str(make_corpus(tmp_path, "many", count, seed=5, text=False))
    config["data"].pop("labelled")
    config["run"]["cycles"] = 1
    config["selector"] = {"kind": "all", "first_cycle": 0}
    log = tmp_path / "labelled.log"
    config["builder"] = {"kind": "external", "teachers": [{"kind": "slow:Slow", "log": str(log)}]}
    config["recogniser"] = {"kind": "ray", "block": BLOCK, "actors": {"min": 1, "max": 2}}
    config["trainer"] |= {"local": False, "steps": 400, "checkpoint_every": 20, "log_every": 20}
    (tmp_path / "slow.py").write_text(SLOW_TEACHER)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    cycle = tmp_path / "run" / "cycles" / "000"

    Driver(tmp_path / "run.yaml").kill_when(lambda: len(list((cycle / "predictions").glob("*.parquet"))) >= 3)
    finished = {path.name: path.read_bytes() for path in (cycle / "predictions").glob("*.parquet")}
    assert BLOCK * len(finished) < count
    (cycle / "predictions" / "torn.parquet").write_bytes(b"PAR1")

    checkpoint = "train/**/checkpoint_manager_snapshot.json"
    Driver(tmp_path / "run.yaml").kill_when(lambda: bool(list(cycle.glob(checkpoint))))
    decisions = read_decisions(cycle / "decisions.parquet")
    assert sorted(d.id for d in decisions) == sorted(f"many-{n}" for n in range(count))
    assert not (tmp_path / "run" / "pool" / "cycle-000").exists()
    for name, content in finished.items():
        assert (cycle / "predictions" / name).read_bytes() == content
    times = Counter(Counter(log.read_text().split()).values())
    # what was being labelled when the kill came is labelled again, a block an actor, and nothing else
    assert times.total() == count + CANARY
    assert times[2] <= 2 * BLOCK
    assert set(times) <= {1, 2}

    Driver(tmp_path / "run.yaml").finish()
    assert (tmp_path / "run" / "pool" / "cycle-000" / "manifest.json").exists()
    assert read_decisions(cycle / "decisions.parquet") == decisions
    steps = [line.split('"step": ')[1].split(",")[0] for line in (cycle / "train" / "metrics.jsonl").open()]
    assert int(steps[-1]) == 400
    assert steps.count("20") == 1  # it went on from a checkpoint
