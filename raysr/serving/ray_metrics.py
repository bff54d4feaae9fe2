"""What is measured of a replica, as Ray's own metrics: on the dashboard, and wherever Prometheus scrapes Ray."""

from collections.abc import Mapping
from typing import Any

from ray.util import metrics

from raysr.serving.metrics import MEASURES


class RayMetrics:
    """A :class:`raysr.serving.metrics.Sink` in a process of Ray."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}
        for name, measure in MEASURES.items():
            own, told, tags = f"raysr_{name}", measure.told, measure.tags
            match measure.kind:
                case "counter":
                    self._made[name] = metrics.Counter(own, told, tags)
                case "gauge":
                    self._made[name] = metrics.Gauge(own, told, tags)
                case "histogram":
                    self._made[name] = metrics.Histogram(own, told, list(measure.bounds), tags)

    def record(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        """Add to a counter, set a gauge, or put into a distribution."""
        made, of = self._made[name], dict(tags)
        match MEASURES[name].kind:
            case "counter":
                if value > 0:  # Ray's counters take no zeros
                    made.inc(value, tags=of)
            case "gauge":
                made.set(value, tags=of)
            case "histogram":
                made.observe(value, tags=of)
