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
from raysr.store.folder import Store, files_in
from tests.object_store import store_of_this_process

DRIVER = """
import sys, yaml
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
    with store_of_this_process() as uri:
        yield uri


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
        n: (folder / n).read_bytes() for n in files_in(folder, ["features"]) if "/checkpoint-" not in n
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


def test_a_folder_of_another_state_is_refused(s3: str, tmp_path: Path) -> None:
    uri, folder, other = f"{s3}/{uuid.uuid4().hex}", tmp_path / "run", tmp_path / "elsewhere"
    with stored(uri, folder, print):
        folder.mkdir()
        (folder / "config.yaml").write_text("run: 1")
    with stored(uri, other, print) as keep:
        assert (other / "config.yaml").read_text() == "run: 1"
        (other / "config.yaml").write_text("run: 2")
        keep()
    told = r"is not what s3://.* keeps, which .* wrote last: move the folder away"
    with pytest.raises(RunError, match=told), stored(uri, folder, print):
        pass
    (folder / "config.yaml").write_text("run: 2")  # a copy of what is kept, whoever made it
    with stored(uri, folder, print):
        pass


def test_whoever_died_while_keeping_or_fetching_goes_on(s3: str, tmp_path: Path) -> None:
    uri, folder = f"{s3}/{uuid.uuid4().hex}", tmp_path / "run"
    with stored(uri, folder, print):
        folder.mkdir()
        (folder / "config.yaml").write_text("run: 1")
        (folder / "events.jsonl").write_text("{}")
    (known,) = json.loads((folder / ".store.json").read_text())["ids"]
    # the index holds, and the process was gone before it knew; its log has grown meanwhile
    (folder / "events.jsonl").write_text("{}{}")
    (folder / ".store.json").write_text(json.dumps({"ids": ["the one before", known], "fetching": False}))
    with stored(uri, folder, print):
        pass
    # half of it was fetched when the process died; a file is of an older state
    (folder / "events.jsonl").unlink()
    (folder / "config.yaml").write_text("run: 0")
    (folder / "old.txt").write_text("")
    (folder / ".store.json").write_text(json.dumps({"ids": [], "fetching": True}))
    with stored(uri, folder, print):
        assert (folder / "events.jsonl").read_text() == "{}{}"
        assert (folder / "config.yaml").read_text() == "run: 1"
        assert not (folder / "old.txt").exists()


def test_what_a_step_finished_is_made_up_for_before_the_next_one_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raysr.ipl.stored.EVERY_S", 0.2)
    uri, folder = f"file://{tmp_path}/store", tmp_path / "run"
    with stored(uri, folder, print) as keep:
        folder.mkdir()
        (folder / "one").write_text("1")
        keep()
        (tmp_path / "store").rename(tmp_path / "away")
        (tmp_path / "store").write_text("no folder")
        (folder / "two").write_text("2")
        keep()  # fails
        (folder / "three").write_text("3")  # of a step that has not ended
        (tmp_path / "store").unlink()
        (tmp_path / "away").rename(tmp_path / "store")
        deadline = time.monotonic() + 30
        while "two" not in (Store(uri).index() or pytest.fail("gone")).files:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "three" not in (Store(uri).index() or pytest.fail("gone")).files


def checkpoint(folder: Path, name: str, ranks: int, without: str = "") -> None:
    place = folder / "cycles/000/train" / name
    place.mkdir(parents=True)
    written = {"progress.json": json.dumps({"ranks": ranks, "step": 1}), "model.safetensors": name}
    for rank in range(ranks):
        named = {f"rank-{rank:05d}.pt": ""} | ({"model.safetensors": ""} if rank == 0 else {})
        written |= {f"rank-{rank:05d}.pt": f"{rank}", f"rank-{rank:05d}.json": json.dumps(named)}
    for file, content in written.items():
        if file != without:
            (place / file).write_text(content)


def test_of_checkpoints_the_whole_ones_are_kept_and_none_of_a_cycle_that_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raysr.ipl.stored.EVERY_S", 0.2)
    uri, folder = f"file://{tmp_path}/store", tmp_path / "run"

    def kept() -> set[str]:
        index = Store(uri).index()
        return {Path(n).parent.name for n in index.files if "checkpoint-" in n} if index else set()

    def wait_for(expected: set[str]) -> None:
        deadline = time.monotonic() + 30
        while kept() != expected:
            assert time.monotonic() < deadline, kept()
            time.sleep(0.05)

    with stored(uri, folder, print) as keep:
        checkpoint(folder, "checkpoint-1", 2)
        checkpoint(folder, "checkpoint-2", 2, without="rank-00001.json")
        checkpoint(folder, "checkpoint-3", 2, without="rank-00001.pt")
        checkpoint(folder, "checkpoint-4", 1, without="progress.json")
        checkpoint(folder, "checkpoint-5", 1)
        wait_for({"checkpoint-1", "checkpoint-5"})
        shutil.rmtree(folder / "cycles/000/train/checkpoint-1")
        wait_for({"checkpoint-5"})
        (folder / "cycles/000/report.json").write_text("{}")
        keep()
        assert kept() == set()
        index = Store(uri).index()
        assert index is not None
        assert set(index.files) == {"cycles/000/report.json"}


def test_a_run_that_another_process_took_over_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raysr.store.owner.BEAT_S", 0.2)
    uri, folder, said = f"file://{tmp_path}/store", tmp_path / "run", list[str]()

    def runs_on() -> None:
        with stored(uri, folder, said.append):
            folder.mkdir()
            (folder / "one").write_text("1")
            other = {"id": "other", "host": "elsewhere", "pid": 1}
            (tmp_path / "store" / "owner.json").write_text(json.dumps(other))
            time.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        runs_on()
    assert "taken for dead" in said[-1]
    assert Store(uri).index() is None, "it writes no more"
    assert "elsewhere" in (tmp_path / "store" / "owner.json").read_text()


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
        assert len(said) == 2
        assert all("cannot keep the run" in line for line in said)
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
    lies = place("team/mine")
    assert lies.relative_to(tmp_path / "scratch").parts[1:] == ("team", "mine")
    assert lies.parts[-3].startswith("s3-speech-runs-")
    assert store_of("team/mine", None) == "s3://speech/runs/team/mine"
    assert (place("/else/mine"), store_of("/else/mine", None)) == (Path("/else/mine"), None)
    monkeypatch.delenv("RAYSR_SCRATCH")
    assert str(place("mine")).startswith("/tmp/raysr-runs/s3-speech-runs-")
    elsewhere = place("mine")
    monkeypatch.setenv("RAYSR_STORAGE", "s3://speech-runs")
    assert place("mine") != elsewhere
