"""What Prometheus can be told of labelling, through the endpoint that every Ray node has.

Names begin with ``ray_raysr_`` there; each is tagged with the run and the cycle.
"""

import time
from collections import deque
from typing import Any

from raysr.ipl.labelling.labeller import BlockReport

WINDOW_S = 60.0
"""Over which the speed is taken."""
BLOCK_SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]
TAGS = ("run", "cycle")


class LabellingMetrics:
    """Counts blocks as they are reported, in the driver's process.

    Args:
        run, cycle: the tags of all that is told.
        pending: utterances that wait to be labelled.
    """

    def __init__(self, run: str, cycle: int, pending: int) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        self._tags = {"run": run, "cycle": str(cycle)}
        self._pending = pending
        self._recent: deque[tuple[float, float]] = deque([(time.monotonic(), 0.0)])

        def made(kind: Any, name: str, description: str, *further: Any, tags: tuple[str, ...] = TAGS) -> Any:
            metric = kind(f"raysr_{name}", description, *further, tag_keys=tags)
            metric.set_default_tags(self._tags)
            return metric

        self._utterances = made(Counter, "labelled_utterances", "Utterances that have a prediction.")
        self._seconds = made(Counter, "labelled_audio_seconds", "Audio in them.")
        self._failures = made(
            Counter,
            "labelling_failures",
            "Utterances that ended without a label: audio, teacher, timeout or death.",
            tags=(*TAGS, "kind"),
        )
        self._speed = made(Gauge, "labelling_audio_hours_per_second", "Over the last minute.")
        self._pool = made(Gauge, "labelling_pool_size", "Actors with teachers that are alive.")
        self._waiting = made(Gauge, "labelling_pending_utterances", "Selected, and without a prediction.")
        self._latency = made(
            Histogram, "labelling_block_seconds", "From a block's arrival at an actor.", BLOCK_SECONDS
        )
        self._waiting.set(pending)

    def block(self, report: BlockReport, latency: float) -> None:
        """Take in a block that was written; ``latency`` is what it took, in seconds."""
        if report.utterances:
            self._utterances.inc(report.utterances)
        if report.seconds:
            self._seconds.inc(report.seconds)
        for kind, count in report.failures.items():
            self._failures.inc(count, tags={"kind": kind})
        self._latency.observe(latency)
        self._pending -= report.utterances
        self._waiting.set(self._pending)
        self._speed.set(self._hours_per_second(report.seconds))

    def pool(self, actors: int) -> None:
        """Take in how many actors are alive."""
        self._pool.set(actors)

    def finish(self) -> None:
        """Say that nothing runs any more."""
        self._speed.set(0.0)
        self._pool.set(0)

    def _hours_per_second(self, seconds: float) -> float:
        now = time.monotonic()
        self._recent.append((now, seconds))
        while len(self._recent) > 2 and self._recent[1][0] < now - WINDOW_S:
            self._recent.popleft()
        heard = sum(audio for _, audio in self._recent) - self._recent[0][1]
        return heard / 3600 / max(1e-3, now - self._recent[0][0])


def pool_watch(metrics: LabellingMetrics) -> type:
    """Return a callback class for Ray Data that tells ``metrics`` the size of the actor pool."""
    from ray.data._internal.execution.execution_callback import ExecutionCallback

    class PoolWatch(ExecutionCallback):
        """Called at every turn of the executor's loop."""

        def __init__(self) -> None:
            self.size = -1

        def on_execution_step(self, executor: Any) -> None:
            size = sum(operator.get_actor_info().running for operator in executor._topology)
            if size != self.size:
                self.size = size
                metrics.pool(size)

    return PoolWatch
