"""What a run writes down reaches TensorBoard, MLflow and W&B once, whatever is stopped, torn or broken meanwhile."""

import importlib.util
import json
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raysr.errors import ConfigError
from raysr.ipl.events import Events
from raysr.ipl.tracking import follower
from raysr.ipl.tracking import trackers as known
from raysr.ipl.tracking.follower import Follower, Numbers, Tracker, followed, numbers
from raysr.ipl.tracking.trackers import Kind, trackers

CONFIG = {"run": {"dir": "runs/x"}, "trainer": {"steps": 4, "lr": 0.5}}


def train(run: Path, cycle: int, *rows: dict[str, Any], torn: str = "") -> None:
    """Append to a training's metrics."""
    folder = run / "cycles" / f"{cycle:03d}" / "train"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows) + torn)


def report(run: Path, cycle: int, wer: float) -> None:
    path = run / "cycles" / f"{cycle:03d}" / "report.json"
    path.write_text(
        json.dumps({"cycle": cycle, "kept_h": 1.5, "label_wer": None, "wer": {"lm": {"clean": wer}}})
    )


class Told(Tracker):
    """A tracker that remembers; breaks where it is told to."""

    def __init__(self, breaks: Callable[[], bool] = lambda: False) -> None:
        self.all: list[tuple[str, int, int, Numbers]] = []
        self.closed = False
        self._breaks = breaks

    def training(self, cycle: int, step: int, numbers: Numbers) -> None:
        if self._breaks():
            raise ConnectionError("the server is away")
        self.all.append(("training", cycle, step, numbers))

    def cycle(self, number: int, numbers: Numbers) -> None:
        self.all.append(("cycle", number, 0, numbers))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_everything_is_told_once_also_after_a_restart(tmp_path: Path) -> None:
    first, second, said = Told(), Told(), list[str]()
    train(tmp_path, 0, {"step": 1, "loss": 3.0}, {"step": 2, "loss": float("nan")}, torn='{"step": 3, "lo')
    watching = Follower(tmp_path, "told", lambda: first, said.append)
    watching.look()
    watching.look()
    assert first.all == [("training", 0, 1, {"loss": 3.0}), ("training", 0, 2, {})]
    train(tmp_path, 0, torn='ss": 1.0}\n')
    report(tmp_path, 0, 0.25)
    train(tmp_path, 1, {"step": 1, "loss": 2.0})
    again = Follower(tmp_path, "told", lambda: second, said.append)
    again.close()
    assert second.all == [
        ("training", 0, 3, {"loss": 1.0}),
        ("cycle", 0, 0, {"kept_h": 1.5, "wer/lm/clean": 0.25}),
        ("training", 1, 1, {"loss": 2.0}),
    ]
    assert second.closed
    assert said == []


def test_one_that_forgets_is_told_all_of_it_again(tmp_path: Path) -> None:
    train(tmp_path, 0, {"step": 1, "loss": 3.0})
    for _ in range(2):
        told, stays = Told(), Told()
        makers = {"told": lambda told=told: told, "stays": lambda stays=stays: stays}
        with followed(tmp_path, makers, lambda line: pytest.fail(line), forgetful=["told"]):
            pass
        assert told.all == [("training", 0, 1, {"loss": 3.0})]
    assert stays.all == []
    assert not (tmp_path / "tracking" / "told.json").exists()


def test_steps_are_told_as_they_begin_and_end(tmp_path: Path) -> None:
    steps: list[tuple[int, str, float | None]] = []

    class Steps(Told):
        def step(self, cycle: int, name: str, seconds: float | None) -> None:
            steps.append((cycle, name, seconds))

    events = Events(tmp_path / "events.jsonl")
    events.add("run started", python="3.11")
    watching = Follower(tmp_path, "told", Steps, lambda line: pytest.fail(line))
    with events.step(2, "label"):
        watching.look()
        assert steps == [(2, "label", None)]
    watching.look()
    (_, (cycle, name, seconds)) = steps
    assert (cycle, name) == (2, "label")
    assert seconds is not None


def test_a_tracker_that_breaks_is_left_alone_and_misses_nothing_later(tmp_path: Path) -> None:
    away, said = [True], list[str]()
    tracker = Told(lambda: away[0])
    train(tmp_path, 0, {"step": 1, "loss": 3.0})
    watching = Follower(tmp_path, "told", lambda: tracker, said.append)
    watching.look()
    watching.look()
    watching.close()
    assert said == ["  told is told no more of this run until it is started again: the server is away"]
    assert not tracker.closed
    away[0] = False
    Follower(tmp_path, "told", lambda: tracker, said.append).close()
    assert tracker.all == [("training", 0, 1, {"loss": 3.0})]


def test_one_that_cannot_be_made_stops_nothing(tmp_path: Path) -> None:
    said = list[str]()

    def fails() -> Told:
        raise OSError("no route to host")

    other = Told()
    with followed(tmp_path, {"fails": fails, "other": lambda: other}, said.append, every=0.01):
        train(tmp_path, 0, {"step": 1, "loss": 3.0})
    assert len(other.all) == 1
    assert said == ["  fails is told no more of this run until it is started again: no route to host"]


def test_one_that_hangs_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "CLOSING_S", 0.2)
    said, other, answered = list[str](), Told(), threading.Event()

    def hangs() -> Told:
        answered.wait(20)
        return Told()

    train(tmp_path, 0, {"step": 1, "loss": 3.0})
    with followed(tmp_path, {"hangs": hangs, "other": lambda: other}, said.append, every=0.01):
        pass
    assert said == ["  hangs does not answer; it is told the rest when the run is started again"]
    assert len(other.all) == 1
    answered.set()


def test_what_a_power_cut_has_left_is_skipped(tmp_path: Path) -> None:
    tracker = Told()
    train(tmp_path, 0, {"step": 1, "loss": 3.0}, torn="\x00\x00\x00\n[1]\n")
    train(tmp_path, 0, {"step": 2, "loss": 2.0})
    (tmp_path / "cycles/000/report.json").write_text("")
    Follower(tmp_path, "told", lambda: tracker, lambda line: pytest.fail(line)).close()
    assert tracker.all[:2] == [("training", 0, 1, {"loss": 3.0}), ("training", 0, 2, {"loss": 2.0})]


def test_a_run_without_anything_to_tell_makes_no_tracker(tmp_path: Path) -> None:
    def fails() -> Told:
        raise AssertionError

    with followed(tmp_path, {"told": fails}, lambda line: pytest.fail(line)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_numbers_are_what_is_finite() -> None:
    row = {
        "step": 1,
        "loss": 2,
        "nan": float("nan"),
        "name": "x",
        "flag": True,
        "inner": {"a": 1.5, "b": None},
    }
    assert numbers(row, without=("step",)) == {"loss": 2.0, "inner/a": 1.5}


def events(file: Path) -> Iterator[Any]:
    """Yield the events of a TensorBoard file, which are records with their length before and check sums between."""
    from tensorboardX.proto.event_pb2 import Event

    data = file.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def tell(run: Path, kind: Kind) -> None:
    """Have two starts of a run followed by a tracker."""
    train(run, 0, {"step": 10, "loss": 3.0}, {"step": 20, "loss": 2.5})
    with followed(run, trackers([kind], run, CONFIG), lambda line: pytest.fail(line)):
        pass
    report(run, 0, 0.25)
    Events(run / "events.jsonl").add("step ended", cycle=0, step="train", seconds=7.5)
    train(run, 1, {"step": 10, "loss": 2.0})
    with followed(run, trackers([kind], run, CONFIG), lambda line: pytest.fail(line)):
        pass


def test_tensorboard_has_a_curve_a_cycle_and_one_over_cycles(tmp_path: Path) -> None:
    tell(tmp_path, "tensorboard")
    found = {}
    for file in (tmp_path / "tensorboard").rglob("events.*"):
        for event in events(file):
            for value in event.summary.value:
                found[file.parent.name, value.tag, event.step] = value.simple_value
    assert found == {
        ("cycle-000", "train/loss", 10): 3.0,
        ("cycle-000", "train/loss", 20): 2.5,
        ("cycle-001", "train/loss", 10): 2.0,
        ("cycles", "cycle/kept_h", 0): 1.5,
        ("cycles", "cycle/wer/lm/clean", 0): 0.25,
        ("cycles", "cycle/seconds/train", 0): 7.5,
    }


def test_mlflow_has_one_run_with_its_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    store = (tmp_path / "store").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = tmp_path / "a-run"
    run.mkdir()
    tell(run, "mlflow")
    client = mlflow.MlflowClient(store)
    (experiment,) = [e for e in client.search_experiments() if e.name == "raysr"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("a-run", "FINISHED")
    assert found.data.params == {"run.dir": "runs/x", "trainer.steps": "4", "trainer.lr": "0.5"}
    curve = client.get_metric_history(found.info.run_id, "cycle-000/loss")
    assert [(point.step, point.value) for point in curve] == [(10, 3.0), (20, 2.5)]
    assert found.data.metrics["cycle-001/loss"] == 2.0
    assert found.data.metrics["cycle/wer/lm/clean"] == 0.25
    assert found.data.metrics["cycle/seconds/train"] == 7.5


def test_wandb_keeps_a_run_offline_without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    run = tmp_path / "a-run"
    run.mkdir()
    tell(run, "wandb")
    deadline = time.monotonic() + 30
    while True:  # a process of W&B's writes them
        kept = [file.read_bytes() for file in (run / "wandb").rglob("*.wandb")]
        missing = [name for name in (b"cycle-000/loss", b"wer/lm/clean") if name not in b"".join(kept)]
        if not missing:
            break
        assert time.monotonic() < deadline, missing
        time.sleep(0.2)
    assert len(kept) == 2, "one for each time it was started"


def test_mlflow_without_a_place_to_keep_things_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("sqlalchemy") is not None:
        pytest.xfail("the whole of MLflow is installed: it keeps them itself")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI to a server, or pip install mlflow"):
        trackers(["mlflow"], tmp_path, CONFIG)


def test_what_is_not_installed_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(known.MODULES, "mlflow", ("no_such_module", "mlflow-skinny"))
    with pytest.raises(
        ConfigError, match=r"run\.tracking: mlflow is not installed; pip install mlflow-skinny"
    ):
        trackers(["tensorboard", "mlflow"], tmp_path, CONFIG)
