"""The transcription endpoint as a plain ASGI application: no Ray; ``deployment.py`` puts it on Ray Serve."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST

from raysr import __version__
from raysr.serving import deepgram, openai, openai_errors, realtime, vosk
from raysr.serving.metrics import Sink
from raysr.serving.settings import ServingConfig
from raysr.serving.state import ServerState

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"


def build_app(config: ServingConfig, sinks: Sequence[Sink] = (), backpressure: bool = True) -> FastAPI:
    """Return the application; it loads its model when it starts and follows the pool while it runs.

    Args:
        config: of the endpoint.
        sinks: that take what it measures, beside ``/metrics``.
        backpressure: whether the server that runs it slows down a client whose messages are not received.
    """
    app = FastAPI(title="raysr", version=__version__, lifespan=_lifespan)
    app.state.server = ServerState.build(config, sinks, backpressure)
    app.include_router(openai.router)
    app.include_router(deepgram.router)
    app.include_router(realtime.router)
    app.include_router(vosk.router)
    app.add_api_route(
        "/healthz", healthz, methods=["GET"], responses={503: {"description": "there is no model yet"}}
    )
    app.add_api_route("/metrics", metrics, methods=["GET"])
    app.add_api_route("/", page, methods=["GET"], include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    openai_errors.install(app)
    if config.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=config.origins, allow_methods=["*"], allow_headers=["*"]
        )
    return app


async def healthz(request: Request) -> Response:
    """Say whether a model is live, which, and how busy this replica is; 503 while there is no model."""
    health = request.app.state.server.health()
    return JSONResponse(health, 200 if health["model"] else 503)


async def metrics(request: Request) -> Response:
    """Tell what is measured of this replica, in Prometheus' text form."""
    state: ServerState = request.app.state.server
    state.gauge()
    return Response(state.metrics.prometheus.text(), media_type=CONTENT_TYPE_LATEST)


async def page() -> Response:
    """Serve the page with live captions."""
    return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: ServerState = app.state.server
    await asyncio.to_thread(state.watcher.poll)
    following = asyncio.create_task(_follow(state))
    try:
        yield
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        await asyncio.to_thread(state.engine.close)
        await asyncio.to_thread(state.keeper.close)


async def _follow(state: ServerState) -> None:
    """Look at the pool every ``poll_seconds``; loading happens beside the event loop and the engine."""

    async def gauge() -> None:
        state.gauge()

    while True:
        await asyncio.sleep(state.config.poll_seconds)
        for look in (
            gauge,
            lambda: asyncio.to_thread(state.access.refresh),
            state.keeper.expire,
            lambda: asyncio.to_thread(state.watcher.poll),
        ):
            try:
                await look()
            except Exception:
                # Whatever happened to one of them, the endpoint goes on, and the next look may find it mended.
                log.exception("a look at the load, keys, old recordings or the pool failed")
