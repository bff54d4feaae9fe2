"""A run that an object store keeps: whatever host is lost, no finished step is done again, and the outcome is alike."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml

from raysr.errors import RunError
from raysr.ipl.config import RunConfig
from raysr.ipl.cycle import run_cycles
from raysr.ipl.decisions import read_decisions
from raysr.ipl.folder import place, store_of
from raysr.ipl.progress import Progress
from raysr.ipl.run import open_run
from raysr.ipl.stored import finished_cycles, stored
from raysr.pool import Pool
from raysr.store import Store, files_in
from tests.object_store import BUCKET, object_store

DRIVER = """
import sys, yaml
from raysr import store
from raysr.errors import RaysrError
from raysr.ipl import stored
from raysr.ipl.config import RunConfig
from raysr.ipl.cycle import run_cycles
from raysr.ipl.progress import Progress
from raysr.ipl.run import open_run

stored.EVERY_S = 1.0
config = RunConfig.parse(yaml.safe_load(open(sys.argv[1])))
try:
    with open_run(config, Progress(quiet=True), use_ray=False) as run:
        run_cycles(run)
except RaysrError as error:
    sys.exit(f"error: {error}")
"""
STEPS = ("selection", "predictions", "decisions", "batches", "student", "report")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket, for this process and its children; its URI."""
    with object_store() as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield f"s3://{BUCKET}"
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def begin(config: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(config)], stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )


def ended(uri: str) -> list[tuple[int, str]]:
    """Return the steps whose end the store knows."""
    with tempfile.TemporaryDirectory() as folder:
        Store(uri).fetch(Path(folder), "events.jsonl")
        events = Path(folder) / "events.jsonl"
        lines = events.read_text().splitlines() if events.exists() else []
    told = [json.loads(line) for line in lines]
    return [(event["cycle"], event["step"]) for event in told if event["event"] == "step ended"]


@pytest.mark.e2e
def test_hosts_that_are_lost_cost_no_finished_step(
    s3: str, tmp_path: Path, tiny_config: Callable[[Path], dict[str, Any]]
) -> None:
    config = tiny_config(tmp_path)
    undisturbed = config | {"run": config["run"] | {"dir": str(tmp_path / "undisturbed")}}
    with open_run(RunConfig.parse(undisturbed), Progress(quiet=True), use_ray=False) as run:
        run_cycles(run)

    uri = f"{s3}/{uuid.uuid4().hex}"
    config["run"]["store"] = uri
    path, folder = tmp_path / "run.yaml", Path(config["run"]["dir"])
    path.write_text(yaml.safe_dump(config))
    for last in ((0, "decisions"), (1, "predictions")):
        driver = begin(path)
        deadline = time.monotonic() + 120
        while last not in ended(uri):
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < deadline
        driver.kill()
        driver.communicate()
        shutil.rmtree(folder)
    driver = begin(path)
    _, told = driver.communicate(timeout=200)
    assert driver.returncode == 0, told

    done = Counter(ended(uri))
    assert set(done) >= {(cycle, step) for cycle in (0, 1) for step in STEPS}
    assert set(done.values()) == {1}
    for cycle in ("000", "001"):
        expected, found = (
            read_decisions(place / "cycles" / cycle / "decisions.parquet")
            for place in (tmp_path / "undisturbed", folder)
        )
        assert found == expected
    assert [e.weights_hash for e in Pool(folder / "pool").entries()] == [
        e.weights_hash for e in Pool(tmp_path / "undisturbed" / "pool").entries()
    ]
    index = Store(uri).fetch(tmp_path / "fetched")
    assert index is not None
    assert not any(name.startswith("features/") for name in index.files)
    assert {n: (tmp_path / "fetched" / n).read_bytes() for n in index.files} == {
        n: (folder / n).read_bytes() for n in files_in(folder, ["features"])
    }
    shutil.rmtree(folder)
    assert finished_cycles(folder, uri) == 2
    assert finished_cycles(folder, None) == 0


def test_what_a_step_has_made_so_far_is_kept_too(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raysr.ipl.stored.EVERY_S", 0.2)
    uri, folder = f"{s3}/{uuid.uuid4().hex}", tmp_path / "run"
    with stored(uri, folder, print) as keep:
        (folder / "cycles/000/predictions").mkdir(parents=True)
        (folder / "cycles/000/selection.jsonl").write_text("{}\n")
        keep()
        (folder / "cycles/000/selection.jsonl").write_text("{}\n{}\n")  # of a step that has not ended
        (folder / "cycles/000/predictions/block.parquet").write_bytes(b"PAR1")
        (folder / "cycles/000/decisions.parquet").write_bytes(b"not yet")
        deadline = time.monotonic() + 30
        while True:
            index = Store(uri).index()
            if index is not None and "cycles/000/predictions/block.parquet" in index.files:
                break
            assert time.monotonic() < deadline
        Store(uri).fetch(tmp_path / "fetched")
        assert (tmp_path / "fetched/cycles/000/selection.jsonl").read_text() == "{}\n"
        assert not (tmp_path / "fetched/cycles/000/decisions.parquet").exists()
    Store(uri).fetch(tmp_path / "fetched")
    assert (tmp_path / "fetched/cycles/000/selection.jsonl").read_text() == "{}\n{}\n"


def test_a_folder_of_another_state_is_refused_and_one_that_died_while_it_kept_is_not(
    s3: str, tmp_path: Path
) -> None:
    uri, folder, other = f"{s3}/{uuid.uuid4().hex}", tmp_path / "run", tmp_path / "elsewhere"
    with stored(uri, folder, print):
        folder.mkdir()
        (folder / "config.yaml").write_text("run: 1")
    with stored(uri, other, print) as keep:
        assert (other / "config.yaml").read_text() == "run: 1"
        (other / "config.yaml").write_text("run: 2")
        keep()
    with (
        pytest.raises(
            RunError, match=r"is not what s3://.* keeps, which .* wrote last: move the folder away"
        ),
        stored(uri, folder, print),
    ):
        pass

    # the index holds, and the process is gone before it knows
    known = (other / ".store.json").read_bytes()
    with stored(uri, other, print):
        (other / "config.yaml").write_text("run: 3")
    pending = json.loads((other / ".store.json").read_bytes())["ids"]
    assert json.loads(known)["ids"][-1] == pending[0]
    index = Store(uri).index()
    assert index is not None
    assert index.id == pending[-1]
    with stored(uri, other, print):
        pass


def test_a_store_that_is_away_for_a_while_costs_nothing_but_its_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, folder, said = f"file://{tmp_path}/store", tmp_path / "run", list[str]()
    with stored(uri, folder, said.append) as keep:
        folder.mkdir()
        (folder / "one").write_text("1")
        keep()
        (tmp_path / "store").rename(tmp_path / "away")
        (tmp_path / "store").write_text("no folder")
        for content in ("2", "3"):
            (folder / "one").write_text(content)
            keep()
        assert len(said) == 1
        assert "cannot keep the run" in said[0]
        (tmp_path / "store").unlink()
        (tmp_path / "away").rename(tmp_path / "store")
    Store(uri).fetch(tmp_path / "fetched")
    assert (tmp_path / "fetched" / "one").read_text() == "3"

    def away() -> None:
        with stored(uri, folder, said.append):
            shutil.rmtree(tmp_path / "store")
            (tmp_path / "store").write_text("no folder")

    with pytest.raises(RunError, match="does not hold the run's last state: start it again"):
        away()


def test_where_a_run_lies_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSR_STORAGE", str(tmp_path))
    assert (place("mine"), store_of("mine", None)) == (tmp_path / "mine", None)
    assert store_of("mine", "s3://own/one") == "s3://own/one"
    monkeypatch.setenv("RAYSR_STORAGE", "s3://speech/runs/")
    monkeypatch.setenv("RAYSR_SCRATCH", str(tmp_path / "scratch"))
    assert place("team/mine") == tmp_path / "scratch" / "s3-speech-runs" / "team/mine"
    assert store_of("team/mine", None) == "s3://speech/runs/team/mine"
    assert (place("/else/mine"), store_of("/else/mine", None)) == (Path("/else/mine"), None)
    monkeypatch.delenv("RAYSR_SCRATCH")
    assert place("mine").is_absolute()
