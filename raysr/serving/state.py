"""What the routes of one replica share: the configuration, the model, the workers, and who is being served."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from raysr.decode.phrases import read_phrases
from raysr.errors import PoolError
from raysr.serving.admission import Places
from raysr.serving.live import LiveStream
from raysr.serving.models import ModelWatcher, ServedModel
from raysr.serving.settings import ServingConfig
from raysr.serving.workers import Workers
from raysr.stream.engine import Engine
from raysr.stream.session import Session

DECODERS = 2
"""Threads that decode uploaded files and open sessions."""


@dataclass
class ServerState:
    """The state of a replica; built with the application, alive between its start and its shutdown."""

    config: ServingConfig
    watcher: ModelWatcher
    workers: Workers
    engine: Engine
    streams: Places
    uploads: Places
    live: set[LiveStream] = field(default_factory=set)

    @classmethod
    def build(cls, config: ServingConfig) -> "ServerState":
        slots = config.limits.sessions + config.limits.uploads + 1  # one warms a model up
        return cls(
            config=config,
            watcher=ModelWatcher(config.pool, config.entry, config.chunking, config.engine, slots),
            workers=Workers(DECODERS),
            engine=Engine(config.threads),
            streams=Places(config.limits.sessions),
            uploads=Places(config.limits.uploads),
        )

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
        """Yield a new session on the model in use, and see to it that it leaves whatever becomes of the block.

        Raises:
            ConfigError: for a phrase that the model cannot boost.
            PoolError: there is no model.
        """
        # beside the event loop: a thousand phrases take a while
        opening = asyncio.ensure_future(self.workers.run(self._open, rate, session_id, phrases))
        try:
            yield await asyncio.shield(opening)
        finally:
            opening.add_done_callback(self._leave)

    def _open(self, rate: int, session_id: str, phrases: Sequence[str]) -> Session:
        model = self.model().streaming
        boosts = read_phrases(phrases, model.recogniser.config.decode.phrase_boost)
        return Session(model, rate=rate, session_id=session_id, phrases=boosts)

    def _leave(self, opened: "asyncio.Future[Session]") -> None:
        if not opened.cancelled() and opened.exception() is None:
            with suppress(RuntimeError):  # the engine is closed
                self.engine.submit(opened.result().leave_task())

    @asynccontextmanager
    async def stream(
        self, session_id: str, rate: int, phrases: Sequence[str] = ()
    ) -> AsyncIterator[LiveStream]:
        """Yield a live stream of a :meth:`session`; it counts in :meth:`health`."""
        async with self.session(rate, session_id, phrases) as session:
            stream = LiveStream(session, self.watcher, self.engine, rate, self.config.limits.queued_seconds)
            self.live.add(stream)
            try:
                yield stream
            finally:
                self.live.discard(stream)

    def health(self) -> dict[str, Any]:
        """Return what ``/healthz`` answers."""
        model = self.watcher.current
        return {
            "status": "ok" if model else "no model",
            "model": model.version if model else None,
            "model_since": model.since if model else None,
            "sessions": self.streams.taken,
            "max_sessions": self.streams.capacity,
            "uploads": self.uploads.taken,
            "lag_seconds": round(max((stream.lag for stream in self.live), default=0.0), 3),
            "pool": {
                "path": self.config.pool,
                "pinned": self.config.entry,
                "refused": dict(self.watcher.refused),
                "trouble": self.watcher.trouble,
            },
        }
