"""A live WebSocket in any dialect: places, limits, refusals and the end of a stream, the same for all of them.

A dialect is pure: it reads a client's messages as what is asked for, and renders what was heard in its own words.
"""

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from fastapi import WebSocket, WebSocketDisconnect

from raysr.audio.live_decoding import LiveDecoding
from raysr.errors import AudioError, ConfigError, PoolError
from raysr.serving.access import Denied
from raysr.serving.admission import Full
from raysr.serving.backlog import Backlog, TooFarAhead
from raysr.serving.keeping import private
from raysr.serving.live import LiveStream, Step
from raysr.serving.logs import Account
from raysr.serving.settings import Limits
from raysr.serving.state import ServerState
from raysr.stream.events import Final

log = logging.getLogger(__name__)

Message = dict[str, Any]
Asked = np.ndarray | bytes | Message | Literal["finalize", "finish"]
"""What a message asks for: samples (N,) to hear or bytes of a container that has them, a message to answer with, a
final of what was heard, the end."""
Reason = Literal[
    "denied",
    "full",
    "restart",
    "not_ready",
    "request",
    "audio",
    "message",
    "idle",
    "too_big",
    "too_long",
    "too_fast",
    "internal",
]
CODES: dict[Reason, int] = {
    "denied": 1008,
    "full": 1013,
    "restart": 1012,
    "not_ready": 1013,
    "request": 1008,
    "audio": 1008,
    "message": 1003,
    "idle": 1011,
    "too_big": 1009,
    "too_long": 1008,
    "too_fast": 1008,
    "internal": 1011,
}
NORMAL = 1000
REASON_BYTES = 120  # RFC 6455 leaves a close frame 123
LAST_WORDS_S = 5.0
RESTARTS = "the server restarts; please reconnect"


class Refusal(Exception):
    """The stream ends here, for a reason that people read; ``reason`` decides the code that it is closed with."""

    def __init__(self, reason: Reason, told: str) -> None:
        super().__init__(told)
        self.reason = reason

    @property
    def code(self) -> int:
        """The close code: 1011, 1012 and 1013 tell clients that they may come again."""
        return CODES[self.reason]


def json_object(message: bytes | str, should: str) -> dict[str, Any]:
    """Return the JSON object that a message is; raise Refusal, with what it should be, where it is none."""
    try:
        found = json.loads(message)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refusal("message", should)
    return found


class Dialect(Protocol):
    """A wire protocol of live recognition."""

    name: str
    """Of the protocol."""
    id: str
    """Of the session."""
    keeps_alive: bool
    """Whether its clients say that they are still there while they have no audio to send."""
    eager: bool
    """Whether its clients wait for an answer to each piece of audio."""

    @property
    def opening(self) -> tuple[int, Sequence[str]] | None:
        """The rate of the samples in Hz and the phrases to expect, as soon as the client has said so.

        What containers hold is at 16 kHz.
        """

    def hello(self, model: str) -> Iterable[Message]:
        """Return what the server says first."""

    def read(self, message: bytes | str) -> Iterable[Asked]:
        """Return what a message asks for; raise Refusal or AudioError for one that may not come."""

    def render(self, step: Step) -> Iterable[Message]:
        """Return the messages that a step of the session is worth."""

    def goodbye(self, received: float) -> Iterable[Message]:
        """Return what is said last of a stream of so many seconds that has ended well."""

    def refused(self, refusal: Refusal) -> Iterable[Message]:
        """Return what is said before the socket is closed for a reason."""


class LiveSocket:
    """One client's stream, from the accepted handshake to the close.

    Refusals come after the handshake, so that every client gets to read them.
    """

    def __init__(self, socket: WebSocket, dialect: Dialect) -> None:
        self._socket, self._dialect = socket, dialect
        self._state: ServerState = socket.app.state.server
        self._stream: LiveStream | None = None
        self._opened = asyncio.Event()
        self._decoding: LiveDecoding | None = None
        self._encoded = asyncio.Event()
        self._stack = contextlib.AsyncExitStack()
        most = None if self._state.backpressure else self._limits.backlog_bytes
        self._backlog = Backlog(socket.receive, most)
        self._came = 0.0
        self._account = Account(dialect.name, dialect.id)

    @property
    def _limits(self) -> Limits:
        return self._state.config.limits

    async def serve(self, refusal: Refusal | None = None) -> None:
        """Answer the client until one of both ends the stream.

        Args:
            refusal: what is wrong with the request itself.
        """
        try:
            self._account.client = self._state.access.client(self._socket)
            if refusal is not None:
                raise refusal
            with self._state.streams.enter(self._account.client):
                async with self._stack, self._backlog:
                    await self._converse()
            self._account.outcome = "ended"
            await self._close(NORMAL)
        except WebSocketDisconnect:
            self._account.outcome = "left"
        except Refusal as refusal:
            await self._refuse(refusal)
        except Denied as denied:
            await self._refuse(Refusal("denied", str(denied)))
        except Full as full:
            await self._refuse(Refusal("full", f"{full}; try again later"))
        except PoolError as error:
            await self._refuse(Refusal("not_ready", str(error)))
        except Exception:
            log.exception("a stream failed")
            await self._refuse(Refusal("internal", "the server failed; please reconnect"))
        finally:
            if self._stream is not None:
                self._account.audio_seconds = self._stream.received
            self._account.write()

    async def _converse(self) -> None:
        """Read and write side by side, until the stream was answered to its end."""
        if self._state.draining.is_set():
            raise Refusal("restart", RESTARTS)
        await self._send(self._dialect.hello(self._state.model().version))
        if self._dialect.opening is not None:
            await self._open()
        writer, reader = asyncio.create_task(self._write()), asyncio.create_task(self._read())
        decoder = asyncio.create_task(self._decode())
        draining = asyncio.create_task(self._state.draining.wait())
        tasks = writer, reader, decoder, draining
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if writer.done():
                await writer
            refusal = None if reader.done() or decoder.done() else Refusal("restart", RESTARTS)
            if reader.done():
                refusal = await _outcome(reader)
            reader.cancel()  # what comes now is not heard
            if self._decoding is not None:
                await self._decoding.end()
                await asyncio.wait((decoder, writer), return_when=asyncio.FIRST_COMPLETED)
                if writer.done():
                    await writer  # has failed: nobody takes what is decoded any more
                refusal = await _outcome(decoder) or refusal
            if self._stream is not None:
                await self._stream.finish()
                await writer
            if refusal is not None:
                raise refusal
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._send(self._dialect.goodbye(self._stream.received if self._stream else 0.0))

    async def _read(self) -> None:
        """Do what the client asks for until it asks for the end; raise Refusal for what it may not."""
        async for message in self._messages():
            try:
                asked = list(self._dialect.read(message))
            except AudioError as error:
                raise Refusal("audio", str(error)) from None
            for one in asked:
                if isinstance(one, dict):
                    await self._send([one])
                    continue
                stream = self._stream or await self._open()
                if isinstance(one, np.ndarray):
                    await self._push(stream, one)
                elif isinstance(one, bytes):
                    await (self._decoding or await self._start_decoding()).push(one)
                elif one == "finalize":
                    await (self._decoding.mark() if self._decoding else stream.finalize())
                else:
                    return

    async def _open(self) -> LiveStream:
        assert self._dialect.opening is not None, "a dialect asks for nothing before it knows the rate"
        rate, phrases = self._dialect.opening
        try:
            opening = self._state.stream(
                self._dialect.id, rate, phrases, private(self._socket), self._dialect.eager
            )
            self._stream = await self._stack.enter_async_context(opening)
        except ConfigError as error:  # a phrase that cannot be boosted
            raise Refusal("request", str(error)) from None
        self._opened.set()
        return self._stream

    async def _start_decoding(self) -> LiveDecoding:
        self._decoding = await self._stack.enter_async_context(LiveDecoding("audio"))
        self._encoded.set()
        return self._decoding

    async def _decode(self) -> None:
        """Hear what a container holds; raise Refusal where that is not audio, or too much of it."""
        await self._encoded.wait()
        assert self._decoding is not None
        assert self._stream is not None
        try:
            async for piece in self._decoding.pieces():
                if isinstance(piece, str):
                    await self._stream.finalize()
                else:
                    await self._push(self._stream, piece)
        except AudioError as error:
            raise Refusal("audio", str(error)) from None

    async def _push(self, stream: LiveStream, samples: np.ndarray) -> None:
        if stream.received > self._limits.session_seconds:
            raise Refusal("too_long", f"a stream may hold {self._limits.session_seconds:g} s of audio")
        await stream.push(samples, self._came if self._decoding is None else None)

    async def _write(self) -> None:
        await self._opened.wait()
        assert self._stream is not None
        async for step in self._stream.steps():
            for event in step.events:
                self._account.model = event.model
                self._account.finals += isinstance(event, Final)
            await self._send(self._dialect.render(step))

    async def _messages(self) -> AsyncIterator[bytes | str]:
        """Yield the client's messages; raise Refusal when one is too long, too many wait, or none comes in time."""
        limits = self._limits
        patience = left = limits.idle_seconds if self._dialect.keeps_alive else limits.quiet_seconds
        while True:
            try:
                async with asyncio.timeout(left):
                    self._came, raw = await self._backlog.next()
            except TimeoutError:
                left = patience - self._waited()
                if left > 0:
                    continue
                raise Refusal("idle", f"nothing came for {patience:g} s") from None
            except TooFarAhead:
                most = f"{limits.backlog_bytes / 1e6:.3g} MB"
                raise Refusal(
                    "too_fast", f"more than {most} wait to be heard; send slower, or a file"
                ) from None
            if raw["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(raw.get("code", 1005))
            message: bytes | str = raw["bytes"] if raw.get("bytes") is not None else raw.get("text") or ""
            if len(message) > limits.message_bytes:
                raise Refusal("too_big", f"a message may hold {limits.message_bytes} bytes")
            yield message
            left = patience

    def _waited(self) -> float:
        """Return for how many seconds we have waited for the client, who may be waiting for us."""
        if self._decoding is not None and self._decoding.owes:
            return 0.0
        return math.inf if self._stream is None else self._stream.waited

    async def _send(self, messages: Iterable[Message]) -> None:
        """Send messages; a client that does not read one in time has left, as far as we can tell."""
        for message in messages:
            try:
                sent = self._socket.send_text(json.dumps(message))
                await asyncio.wait_for(sent, self._limits.send_seconds)
            except (TimeoutError, RuntimeError):
                raise WebSocketDisconnect(1006) from None

    async def _refuse(self, refusal: Refusal) -> None:
        self._account.outcome = refusal.reason
        self._state.metrics.record("refused", reason=refusal.reason)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._send(self._dialect.refused(refusal)), LAST_WORDS_S)
        await self._close(refusal.code, str(refusal))

    async def _close(self, code: int, reason: str = "") -> None:
        with contextlib.suppress(Exception):
            await self._socket.close(code, reason.encode()[:REASON_BYTES].decode(errors="ignore"))


async def _outcome(task: "asyncio.Task[None]") -> Refusal | None:
    """Return why reading or decoding stopped: None when the client asked for the end; a client that left raises."""
    try:
        await task
    except Refusal as refusal:
        return refusal
    return None
