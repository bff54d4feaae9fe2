"""How a run tells a person what it does: a live bar on a terminal, a line now and then in a log."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

LINE_EVERY_S = 15.0
FOLLOW_EVERY_S = 1.0


class Progress:
    """Prints to standard output; ``quiet`` prints nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False)

    @contextmanager
    def track(self, label: str, total: float) -> Iterator[Callable[[float, str], None]]:
        """Show how far something is, by a function that takes what is done and a remark."""
        if not self.console.is_terminal:
            yield self._lines(label, total)
            return
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Bars(*columns, TimeRemainingColumn(), console=self.console, transient=True) as bars:
            task = bars.add_task(label, total=total, note="")
            yield lambda done, note: bars.update(task, completed=done, note=note)

    def _lines(self, label: str, total: float) -> Callable[[float, str], None]:
        last = time.monotonic()

        def update(done: float, note: str) -> None:
            nonlocal last
            if time.monotonic() - last >= LINE_EVERY_S:
                last = time.monotonic()
                self.say(f"  {label} {done:g}/{total:g} {note}")

        return update

    @contextmanager
    def follow_training(self, metrics: Path, steps: int) -> Iterator[None]:
        """Show the steps that a training reports into a file of JSON lines, for as long as the block runs."""
        over = threading.Event()

        def watch(update: Callable[[float, str], None]) -> None:
            while not over.wait(FOLLOW_EVERY_S):
                line = _last_line(metrics)
                if line:
                    note = f"loss {line['loss']:.3f}, {line['seconds_per_step']:.2f} s a step"
                    update(line["step"], note)

        with self.track("training", steps) as update:
            watcher = threading.Thread(target=watch, args=(update,), daemon=True)
            watcher.start()
            try:
                yield
            finally:
                over.set()
                watcher.join()


def _last_line(path: Path) -> dict:
    """Return the last whole line of a file of JSON lines, or nothing."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 4096))
            lines = file.read().split(b"\n")
        return json.loads(lines[-2]) if len(lines) > 1 else {}
    except (OSError, ValueError):
        return {}
