"""What is measured of the endpoint: told by ``/metrics`` in Prometheus' form, and to Ray where Ray runs it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from raysr.stream.engine import Meter

SECONDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)


class Measure(NamedTuple):
    """Something that is measured: a count of what has been, a value of now, or a distribution."""

    kind: Literal["counter", "gauge", "histogram"]
    told: str
    tags: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


MEASURES: Mapping[str, Measure] = {
    "sessions": Measure("gauge", "live streams that are open"),
    "uploads": Measure("gauge", "files that are being transcribed"),
    "refused": Measure("counter", "streams and requests that were refused or broken off", ("reason",)),
    "lag_seconds": Measure(
        "gauge", "since audio could be recognised that is not yet, of the stream that is furthest behind"
    ),
    "first_partial_seconds": Measure("histogram", "from the onset of speech to its first text", (), SECONDS),
    "emission_seconds": Measure(
        "histogram", "from the end of a word to the text that has it for good", (), SECONDS
    ),
    "final_seconds": Measure(
        "histogram", "from the last word's end, or the request, to the final", ("cause",), SECONDS
    ),
    "batch_size": Measure("histogram", "streams that share a step of the encoder", (), SIZES),
    "encoder_step_seconds": Measure("histogram", "a step of the encoder", (), STEPS),
    "round_seconds": Measure("histogram", "a round of the engine: steps, features and decoding", (), STEPS),
    "audio_seconds": Measure("counter", "audio that was recognised; rounds by this are the real-time factor"),
    "busy_seconds": Measure("counter", "the engine's rounds together"),
    "model_info": Measure("gauge", "1 for the model in use", ("version",)),
    "refused_entries": Measure("gauge", "entries of the pool that are not served: /healthz says why"),
}


class Sink(Protocol):
    """Takes what is measured."""

    def record(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        """Add to a counter, set a gauge, or put into a distribution."""


class Metrics:
    """Hands what is measured to all who take it."""

    def __init__(self, sinks: Sequence[Sink] = ()) -> None:
        self.prometheus = Prometheus()
        self._sinks: list[Sink] = [self.prometheus, *sinks]

    def record(self, name: str, value: float = 1.0, **tags: str) -> None:
        """Add to a counter, set a gauge, or put into a distribution; see :data:`MEASURES`. From any thread."""
        for sink in self._sinks:
            sink.record(name, value, tags)


class EngineMeter(Meter):
    """What an engine measures, as metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def stepped(self, size: int, seconds: float) -> None:
        """Note a step of the encoder."""
        self._metrics.record("batch_size", size)
        self._metrics.record("encoder_step_seconds", seconds)

    def rounded(self, seconds: float) -> None:
        """Note a round."""
        self._metrics.record("round_seconds", seconds)
        self._metrics.record("busy_seconds", seconds)


class Prometheus:
    """A registry of its own, so that several endpoints in a process do not meet."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._made: dict[str, Any] = {}
        makers = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
        for name, measure in MEASURES.items():
            bounds = {"buckets": measure.bounds} if measure.bounds else {}
            maker: Any = makers[measure.kind]
            self._made[name] = maker(
                f"raysr_{name}", measure.told, measure.tags, registry=self._registry, **bounds
            )

    def record(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        """See :class:`Sink`."""
        made = self._made[name].labels(**tags) if tags else self._made[name]
        match MEASURES[name].kind:
            case "counter":
                made.inc(value)
            case "gauge":
                made.set(value)
            case "histogram":
                made.observe(value)

    def text(self) -> bytes:
        """Return all of it in Prometheus' text form."""
        return generate_latest(self._registry)
