"""What the routes of one replica share: the configuration, the model, the workers, and who is being served."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from raysr.decode.phrases import read_phrases
from raysr.errors import PoolError
from raysr.serving.admission import Places
from raysr.serving.live import LiveStream
from raysr.serving.models import ModelWatcher, ServedModel
from raysr.serving.settings import ServingConfig
from raysr.serving.workers import Workers
from raysr.stream.session import Session


@dataclass
class ServerState:
    """The state of a replica; built with the application, alive between its start and its shutdown."""

    config: ServingConfig
    watcher: ModelWatcher
    workers: Workers
    streams: Places
    uploads: Places
    live: set[LiveStream] = field(default_factory=set)

    @classmethod
    def build(cls, config: ServingConfig) -> "ServerState":
        return cls(
            config=config,
            watcher=ModelWatcher(config.pool, config.entry, config.chunking, config.engine),
            workers=Workers(config.threads),
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

    def session(self, rate: int, session_id: str, phrases: Sequence[str] = ()) -> Session:
        """Return a new session on the model in use; ConfigError for a phrase that it cannot boost.

        For a worker thread: a thousand phrases take a while.
        """
        model = self.model()
        return Session(
            model.recogniser,
            rate=rate,
            version=model.version,
            session_id=session_id,
            chunking=self.config.chunking,
            phrases=read_phrases(phrases, model.recogniser.config.decode.phrase_boost),
        )

    @contextmanager
    def watching(self, stream: LiveStream) -> Iterator[None]:
        """Count ``stream`` in :meth:`health` for the block."""
        self.live.add(stream)
        try:
            yield
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
