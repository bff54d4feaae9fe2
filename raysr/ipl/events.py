"""``events.jsonl``: what a run did and when, one JSON object a line, appended for ever."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raysr.cluster import is_own


class Events:
    """Appends to a file; a line torn by a crash is left as it is.

    Args:
        path: of the file.
        done: called when a step has ended and is noted.
    """

    def __init__(self, path: Path, done: Callable[[], None] = lambda: None) -> None:
        self.path, self._done = path, done

    def add(self, event: str, **facts: Any) -> None:
        """Append one event with the time in seconds since the epoch."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time(), 3), "event": event, **facts}) + "\n")

    @contextmanager
    def step(self, cycle: int, name: str) -> Iterator[None]:
        """Record that a step begins, and how long it took; a step without an end was cut off."""
        self.add("step began", cycle=cycle, step=name)
        started = time.monotonic()
        yield
        self.add("step ended", cycle=cycle, step=name, seconds=round(time.monotonic() - started, 3))
        self._done()


def resources() -> dict[str, float]:
    """Return the cores and GPUs of the cluster that we are in; of this machine where there is none, or it is ours.

    A Ray that we start here declares more CPUs than there are cores.
    """
    import ray
    import torch

    if ray.is_initialized() and not is_own():
        found = ray.cluster_resources()
        return {"cpus": found.get("CPU", 0.0), "gpus": found.get("GPU", 0.0)}
    return {"cpus": float(len(os.sched_getaffinity(0))), "gpus": float(torch.cuda.device_count())}
