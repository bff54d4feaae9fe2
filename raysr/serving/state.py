"""What the routes of one replica share: the configuration, the model, the engine, and who is being served."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from raysr.decode.phrases import read_phrases
from raysr.errors import PoolError
from raysr.serving.access import Access
from raysr.serving.admission import Places
from raysr.serving.keeping import Keeper
from raysr.serving.live import LiveStream
from raysr.serving.metrics import EngineMeter, Metrics, Sink
from raysr.serving.models import ModelWatcher, ServedModel
from raysr.serving.settings import ServingConfig, UserConfig
from raysr.stream.engine import Engine
from raysr.stream.session import Session


@dataclass
class ServerState:
    """The state of a replica; built with the application, alive between its start and its shutdown."""

    config: ServingConfig
    watcher: ModelWatcher
    engine: Engine
    metrics: Metrics
    access: Access
    streams: Places
    uploads: Places
    keeper: Keeper
    backpressure: bool
    live: set[LiveStream] = field(default_factory=set)
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    _told: str | None = None

    @classmethod
    def build(
        cls, config: ServingConfig, sinks: Sequence[Sink] = (), backpressure: bool = True
    ) -> "ServerState":
        """Return the state of a replica; see :func:`raysr.serving.app.build_app`."""
        metrics = Metrics(sinks)
        slots = config.limits.sessions + config.limits.uploads + 1  # one warms a model up
        return cls(
            config=config,
            watcher=ModelWatcher(
                config.pool, config.entry, config.chunking, config.engine, slots, config.promotion
            ),
            engine=Engine(config.threads, EngineMeter(metrics)),
            metrics=metrics,
            access=Access(config.keys, config.origins),
            streams=Places(config.limits.sessions, config.limits.sessions_per_key),
            uploads=Places(config.limits.uploads, config.limits.uploads_per_key),
            keeper=Keeper(config.keep),
            backpressure=backpressure,
        )

    def reconfigure(self, config: UserConfig) -> None:
        """Follow another entry of the pool, or end all that runs; for the event loop."""
        self.watcher.pin(config.entry)
        if config.drain:
            self.draining.set()
        else:
            self.draining.clear()

    def model(self) -> ServedModel:
        """Return the model in use; raise PoolError while there is none."""
        if self.watcher.current is None:
            reasons = [self.watcher.trouble, *self.watcher.refused.values()]
            told = "; ".join(reason for reason in reasons if reason)
            raise PoolError(f"no model is ready yet{': ' + told if told else ', the pool is empty'}")
        return self.watcher.current

    @asynccontextmanager
    async def session(
        self, rate: int, session_id: str, phrases: Sequence[str] = ()
    ) -> AsyncIterator[Session]:
        """Yield a new session on the model in use; it has left its place in the model's batch when the block ends.

        Raises:
            ConfigError: for a phrase that the model cannot boost.
            PoolError: there is no model.
        """
        # beside the event loop: a thousand phrases take a while
        opening = asyncio.ensure_future(asyncio.to_thread(self._open, rate, session_id, phrases))
        try:
            yield await asyncio.shield(opening)
        finally:
            await asyncio.wait({opening})
            if opening.exception() is None:
                with suppress(RuntimeError):  # the engine is closed
                    await asyncio.shield(self.engine.run(opening.result().leave_task()))

    def _open(self, rate: int, session_id: str, phrases: Sequence[str]) -> Session:
        model = self.model().streaming
        boosts = read_phrases(phrases, model.recogniser.config.decode.phrase_boost)
        return Session(model, rate=rate, session_id=session_id, phrases=boosts)

    @asynccontextmanager
    async def stream(
        self,
        session_id: str,
        rate: int,
        phrases: Sequence[str] = (),
        private: bool = False,
        eager: bool = False,
    ) -> AsyncIterator[LiveStream]:
        """Yield a live stream of a :meth:`session`; it counts in :meth:`health`.

        Of ``private`` ones nothing is kept; ``eager`` ones answer each piece of audio.
        """
        recording = self.keeper.recording(session_id, rate, private)
        async with self.session(rate, session_id, phrases) as session, recording as kept:
            most = self.config.limits.queued_seconds
            stream = LiveStream(session, self.watcher, self.engine, self.metrics, rate, most, kept, eager)
            self.live.add(stream)
            try:
                yield stream
            finally:
                self.live.discard(stream)

    @property
    def lag(self) -> float:
        """Seconds since the oldest audio that is not recognised yet has come, of all streams."""
        return max((stream.lag for stream in self.live), default=0.0)

    def gauge(self) -> None:
        """Record what is so now."""
        self.metrics.record("sessions", self.streams.taken)
        self.metrics.record("uploads", self.uploads.taken)
        self.metrics.record("lag_seconds", self.lag)
        self.metrics.record("refused_entries", len(self.watcher.refused))
        version = self.watcher.current.version if self.watcher.current else None
        if self._told and version != self._told:
            self.metrics.record("model_info", 0, version=self._told)
        if version:  # each time: Ray forgets a gauge that is not set for a while
            self.metrics.record("model_info", 1, version=version)
        self._told = version

    def health(self) -> dict[str, Any]:
        """Return what ``/healthz`` answers."""
        model = self.watcher.current
        return {
            "status": "draining" if self.draining.is_set() else "ok" if model else "no model",
            "model": model.version if model else None,
            "model_since": model.since if model else None,
            "older_models": self.watcher.older,
            "sessions": self.streams.taken,
            "max_sessions": self.streams.capacity,
            "keys": self.config.keys is not None,
            "keeps": self.config.keep and self.config.keep.model_dump(include={"audio", "text", "days"}),
            "uploads": self.uploads.taken,
            "lag_seconds": round(self.lag, 3),
            "pool": {
                "path": self.config.pool,
                "pinned": self.watcher.pinned,
                "refused": dict(self.watcher.refused),
                "trouble": self.watcher.trouble,
            },
        }
