"""The live streaming protocol of Deepgram, ``WS /v1/listen``: raw audio in, interim and final results out.

Written from Deepgram's public API reference and checked with its own client, ``deepgram-sdk``.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from raysr.errors import ConfigError, RaysrError
from raysr.serving.admission import Full
from raysr.serving.deepgram_messages import ListenQuery, Renderer, error_message
from raysr.serving.live import LiveStream
from raysr.serving.settings import Limits
from raysr.serving.state import ServerState
from raysr.stream.pcm import PcmReader

log = logging.getLogger(__name__)
router = APIRouter()

NORMAL, UNSUPPORTED, POLICY, TOO_BIG, INTERNAL, TRY_LATER = 1000, 1003, 1008, 1009, 1011, 1013


class Refusal(Exception):
    """The stream ends here: what to tell the client, and the code to close with."""

    def __init__(self, code: int, variant: str, description: str) -> None:
        super().__init__(description)
        self.code, self.variant = code, variant


@router.websocket("/v1/listen")
async def listen(socket: WebSocket) -> None:
    """Serve one stream. Refusals come after the handshake, so that every client gets to read them."""
    state: ServerState = socket.app.state.server
    await socket.accept(_subprotocol(socket))
    renderer = None
    try:
        query = _query(socket)
        with state.streams.enter():
            renderer = Renderer(query, state.model().version)
            await _converse(socket, state, query, renderer)
        await _close(socket, NORMAL)
    except WebSocketDisconnect:
        log.info("a client left before its stream ended")
    except Refusal as refusal:
        await _refuse(socket, refusal, renderer)
    except Full as full:
        await _refuse(socket, Refusal(TRY_LATER, "TOO_MANY_SESSIONS", f"{full}; try again later"), renderer)
    except ConfigError as error:  # a phrase that cannot be boosted
        await _refuse(socket, Refusal(POLICY, "INVALID_QUERY_PARAMETER", str(error)), renderer)
    except RaysrError as error:
        await _refuse(socket, Refusal(TRY_LATER, "NOT_READY", str(error)), renderer)
    except Exception:
        log.exception("a stream failed")
        await _refuse(socket, Refusal(INTERNAL, "INTERNAL", "the server failed; please reconnect"), renderer)


async def _converse(socket: WebSocket, state: ServerState, query: ListenQuery, renderer: Renderer) -> None:
    """Read audio and write results side by side, until the stream was answered to its end."""
    limits, rate = state.config.limits, query.sample_rate
    async with state.session(rate, renderer.request_id, query.phrases) as session:
        stream = LiveStream(session, state.watcher, state.engine, rate, limits.queued_seconds)
        writer = asyncio.create_task(_write(socket, stream, renderer, limits))
        reader = asyncio.create_task(_read(socket, stream, query, limits))
        with state.watching(stream):
            try:
                await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
                if writer.done():
                    await writer
                refusal = await _outcome(reader)
                await stream.finish()
                await writer
                if refusal is not None:
                    raise refusal
            finally:
                await _cancel(reader, writer)
    await _send(socket, renderer.metadata(stream.received), limits)


async def _outcome(reader: "asyncio.Task[None]") -> Refusal | None:
    """Return why the reader stopped: None when the client asked for the end; a client that left raises."""
    try:
        await reader
    except Refusal as refusal:
        return refusal
    return None


async def _read(socket: WebSocket, stream: LiveStream, query: ListenQuery, limits: Limits) -> None:
    """Queue what the client sends until it says CloseStream; raise Refusal for what it may not send."""
    reader = PcmReader(query.encoding, query.channels)
    async for message in _messages(socket, limits):
        if isinstance(message, bytes):
            await _push(stream, reader, message, limits)
            continue
        match _control(message):
            case "Finalize":
                await stream.finalize()
            case "CloseStream":
                return
            case "KeepAlive":
                pass
            case other:
                raise Refusal(UNSUPPORTED, "DATA-0000", f"a text message of type {other} is not understood")


async def _push(stream: LiveStream, reader: PcmReader, message: bytes, limits: Limits) -> None:
    try:
        samples = reader.push(message)
    except RaysrError as error:
        raise Refusal(POLICY, "DATA-0000", str(error)) from None
    if stream.received > limits.session_seconds:
        raise Refusal(POLICY, "SESSION-TOO-LONG", f"a stream may hold {limits.session_seconds:g} s of audio")
    if len(samples):
        await stream.push(samples)


async def _messages(socket: WebSocket, limits: Limits) -> AsyncIterator[bytes | str]:
    """Yield the client's messages; raise Refusal when one is too long or none comes in time."""
    while True:
        try:
            raw = await asyncio.wait_for(socket.receive(), limits.idle_seconds)
        except TimeoutError:
            raise Refusal(
                INTERNAL, "NET-0001", f"no audio and no KeepAlive came for {limits.idle_seconds:g} s"
            ) from None
        if raw["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(raw.get("code", 1005))
        message: bytes | str = raw["bytes"] if raw.get("bytes") is not None else raw.get("text") or ""
        if len(message) > limits.message_bytes:
            raise Refusal(TOO_BIG, "MESSAGE-TOO-LONG", f"a message may hold {limits.message_bytes} bytes")
        yield message


async def _write(socket: WebSocket, stream: LiveStream, renderer: Renderer, limits: Limits) -> None:
    async for step in stream.steps():
        for message in renderer.render(step):
            await _send(socket, message, limits)


async def _send(socket: WebSocket, message: dict[str, object], limits: Limits) -> None:
    """Send one message; a client that does not read it in time has left, as far as we can tell."""
    try:
        await asyncio.wait_for(socket.send_text(json.dumps(message)), limits.send_seconds)
    except (TimeoutError, RuntimeError):
        raise WebSocketDisconnect(1006) from None


async def _refuse(socket: WebSocket, refusal: Refusal, renderer: Renderer | None) -> None:
    request_id = renderer.request_id if renderer else ""
    with contextlib.suppress(Exception):
        await asyncio.wait_for(
            socket.send_text(json.dumps(error_message(refusal.variant, str(refusal), request_id))), 5.0
        )
    await _close(socket, refusal.code, refusal.variant)


async def _close(socket: WebSocket, code: int, reason: str = "") -> None:
    with contextlib.suppress(Exception):
        await socket.close(code, reason)


async def _cancel(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _query(socket: WebSocket) -> ListenQuery:
    try:
        given = socket.query_params
        return ListenQuery.read(given, [*given.getlist("keyterm"), *given.getlist("keywords")])
    except RaysrError as error:
        raise Refusal(POLICY, "INVALID_QUERY_PARAMETER", str(error)) from None


def _subprotocol(socket: WebSocket) -> str | None:
    """Answer the ``token`` sub-protocol that Deepgram's browser clients offer; a browser drops the socket otherwise."""
    offered = socket.scope.get("subprotocols") or []
    return "token" if "token" in offered else None


def _control(message: str) -> str:
    try:
        kind = json.loads(message)["type"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Refusal(UNSUPPORTED, "DATA-0000", "a text message should be JSON with a 'type'") from None
    return kind if isinstance(kind, str) else repr(kind)[:40]
