"""TensorBoard, Ray's own metrics, MLflow and Weights & Biases, each told of a run's numbers in its own way.

MLflow and W&B are no dependencies of ours: who wants one installs it, and sets it up by its own environment variables
(``MLFLOW_TRACKING_URI``, ``WANDB_API_KEY``, …).
"""

import hashlib
import importlib.util
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from raysr.errors import ConfigError
from raysr.ipl.tracking.follower import Numbers, Tracker

Kind = Literal["tensorboard", "ray", "mlflow", "wandb"]
MODULES: Mapping[Kind, tuple[str, str]] = {
    "tensorboard": ("tensorboardX", "tensorboardX"),
    "ray": ("ray", "ray"),
    "mlflow": ("mlflow", "mlflow-skinny"),
    "wandb": ("wandb", "wandb"),
}
"""What is imported, and what is installed."""
FORGETFUL: tuple[Kind, ...] = ("ray",)
"""Those that keep nothing of what they are told when they end."""
EXPERIMENT = "raysr"
LONGEST = 500
"""Characters of a parameter that MLflow takes."""


def trackers(
    kinds: Sequence[Kind], folder: Path, config: Mapping[str, Any]
) -> dict[str, Callable[[], Tracker]]:
    """Return what makes the trackers of a run, by name.

    Raises:
        ConfigError: one is not installed.
    """
    for kind in kinds:
        module, package = MODULES[kind]
        if importlib.util.find_spec(module) is None:
            raise ConfigError(
                f"run.tracking: {kind} is not installed; pip install {package}, or leave it out"
            )
    alone = "mlflow" in kinds and "MLFLOW_TRACKING_URI" not in os.environ
    if alone and importlib.util.find_spec("sqlalchemy") is None:
        raise ConfigError(
            "run.tracking: mlflow-skinny keeps nothing by itself: "
            "set MLFLOW_TRACKING_URI to a server, or pip install mlflow"
        )
    classes: dict[Kind, Callable[[Path, Mapping[str, Any]], Tracker]]
    classes = {"tensorboard": TensorBoard, "ray": RayGauges, "mlflow": MlFlow, "wandb": WandB}
    return {kind: partial(classes[kind], folder, config) for kind in kinds}


class TensorBoard(Tracker):
    """Event files under ``tensorboard/`` of the run: a curve for every cycle, and one over cycles.

    Written here, event by event: tensorboardX's own writer keeps a thread and a buffer, which a full disk makes noisy.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self._folder = folder / "tensorboard"
        self._file = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._waiting: dict[str, bytes] = {}

    def training(self, cycle: int, step: int, numbers: Numbers) -> None:
        """Draw a point of each curve of the cycle."""
        self._add(f"cycle-{cycle:03d}", "train", step, numbers)

    def cycle(self, number: int, numbers: Numbers) -> None:
        """Draw a point of each curve over cycles."""
        self._add("cycles", "cycle", number, numbers)

    def flush(self) -> None:
        """Write what waits."""
        for part, records in self._waiting.items():
            path = self._folder / part / self._file
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                head = b"" if file.tell() else _record(file_version="brain.Event:2")
                file.write(head + records)
        self._waiting = {}

    def close(self) -> None:
        """Leave the files as they are."""

    def _add(self, part: str, prefix: str, step: int, numbers: Numbers) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=f"{prefix}/{name}", simple_value=value) for name, value in numbers.items()
        ]
        record = _record(step=step, summary=Summary(value=values))
        self._waiting[part] = self._waiting.get(part, b"") + record


def _record(**content: Any) -> bytes:
    """Return an event as a record of TensorFlow's: length, its check sum, the event, its check sum."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    data = Event(wall_time=time.time(), **content).SerializeToString()
    length = struct.pack("<Q", len(data))
    return b"".join(
        (length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data)))
    )


class RayGauges(Tracker):
    """Gauges of Ray's with the newest numbers: on the dashboard, and wherever Prometheus scrapes Ray.

    Names begin with ``ray_raysr_`` there: ``training_…`` as in :class:`raysr.train.metrics.StepMetrics`, ``cycle_…`` as
    in a cycle's report, ``step_running`` (1 while it does) and ``step_seconds``; each is tagged with run and cycle.
    They are set again and again, since Ray drops what is not, and so are gone soon after the driver.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self._run = folder.resolve().name
        self._made: dict[str, Any] = {}
        self._newest: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def training(self, cycle: int, step: int, numbers: Numbers) -> None:
        """Set what the newest step that is reported says."""
        for name, value in {"step": float(step), **numbers}.items():
            self._set(f"training_{name}", "Of the newest step that was reported.", value, cycle=cycle)

    def cycle(self, number: int, numbers: Numbers) -> None:
        """Set what the cycle came to; word error rates are tagged with method and set."""
        for name, value in numbers.items():
            told = "Of the cycle's report."
            if (parts := name.split("/"))[0] == "wer" and len(parts) == 3:
                self._set("cycle_wer", told, value, cycle=number, method=parts[1], set=parts[2])
            else:
                self._set(f"cycle_{name}", told, value, cycle=number)

    def step(self, cycle: int, name: str, seconds: float | None) -> None:
        """Set whether a step runs, and what it took."""
        told = "1 while this step of the cycle runs."
        self._set("step_running", told, float(seconds is None), cycle=cycle, step=name)
        if seconds is not None:
            self._set("step_seconds", "What this step took.", seconds, cycle=cycle, step=name)

    def flush(self) -> None:
        """Set them all once more."""
        for (name, tags), value in self._newest.items():
            self._made[name].set(value, dict(tags))

    def close(self) -> None:
        """Leave them: Ray drops them soon."""

    def _set(self, name: str, told: str, value: float, **tags: object) -> None:
        from ray.util.metrics import Gauge

        if name not in self._made:
            own = re.sub(r"[^a-zA-Z0-9_]", "_", f"raysr_{name}")
            self._made[name] = Gauge(own, told, ("run", *tags))
        tagged = (("run", self._run), *((tag, str(of)) for tag, of in tags.items()))
        self._newest[name, tagged] = value


class MlFlow(Tracker):
    """One MLflow run for a run; without ``MLFLOW_TRACKING_URI`` it is kept in ``mlflow.db`` of the run."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient

        place = (folder / "mlflow.db").absolute()
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{place}")
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        identity = _identity(folder)
        known = self._client.search_runs([experiment], f"tags.`raysr.run` = '{identity}'", max_results=1)
        if known:
            self._run = known[0].info.run_id
        else:
            tags = {"raysr.run": identity}
            made = self._client.create_run(experiment, tags=tags, run_name=folder.resolve().name)
            self._run = made.info.run_id
            for key, value in _flat(config).items():
                self._client.log_param(self._run, key, str(value)[:LONGEST])
        self._waiting: list[Any] = []

    def training(self, cycle: int, step: int, numbers: Numbers) -> None:
        """Log metrics under their cycle."""
        self._add(f"cycle-{cycle:03d}", step, numbers)

    def cycle(self, number: int, numbers: Numbers) -> None:
        """Log metrics over cycles."""
        self._add("cycle", number, numbers)

    def flush(self) -> None:
        """Send what waits."""
        while self._waiting:
            part, self._waiting = self._waiting[:1000], self._waiting[1000:]
            self._client.log_batch(self._run, metrics=part)

    def close(self) -> None:
        """End the run; it is gone on with when this one is."""
        self._client.set_terminated(self._run)

    def _add(self, prefix: str, step: int, numbers: Numbers) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(f"{prefix}/{name}", value, now, step) for name, value in numbers.items()]


class WandB(Tracker):
    """One W&B run for a run; without an API key it is kept offline, under ``wandb/`` of the run."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        import wandb

        offline = "WANDB_MODE" not in os.environ and not wandb.login(prompt=False)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", EXPERIMENT),
            name=folder.resolve().name,
            id=_identity(folder),
            resume="allow",
            dir=str(folder),
            config=dict(config),
            mode="offline" if offline else None,
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._parts: set[str] = set()

    def training(self, cycle: int, step: int, numbers: Numbers) -> None:
        """Log metrics under their cycle, by its steps."""
        self._add(f"cycle-{cycle:03d}", "step", step, numbers)

    def cycle(self, number: int, numbers: Numbers) -> None:
        """Log metrics by cycle."""
        self._add("cycle", "number", number, numbers)

    def flush(self) -> None:
        """Leave it to W&B's own process, which has what was logged."""

    def close(self) -> None:
        """End the run; it is gone on with when this one is."""
        self._run.finish()

    def _add(self, prefix: str, by: str, step: int, numbers: Numbers) -> None:
        if prefix not in self._parts:
            self._parts.add(prefix)
            self._run.define_metric(f"{prefix}/*", step_metric=f"{prefix}/{by}")
        told = {f"{prefix}/{name}": value for name, value in numbers.items()}
        self._run.log(told | {f"{prefix}/{by}": step})


def _identity(folder: Path) -> str:
    """Return what a run is known by, whoever starts it again."""
    resolved = folder.resolve()
    return f"{resolved.name[:40]}-{hashlib.sha256(str(resolved).encode()).hexdigest()[:10]}"


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + str(name)] = value
    return found
