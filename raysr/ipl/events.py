"""``events.jsonl``: what a run did and when, one JSON object a line, appended for ever."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Events:
    """Appends to a file; a line torn by a crash is left as it is."""

    def __init__(self, path: Path) -> None:
        self.path = path

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
