"""A client's messages that wait to be read, and when they came.

Some servers slow a sender down where nobody receives (uvicorn, HAProxy: the socket fills up), others take what comes
and keep it in memory without end (Ray Serve's own proxy). Behind those a sender that is too far ahead is refused.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, Self

Raw = MutableMapping[str, Any]
PAUSED_BYTES = 1 << 20
"""Of messages that wait where the sender is slowed down."""


class TooFarAhead(Exception):
    """More waits than may, and the sender does not notice."""


class Backlog:
    """Receives for as long as the block runs, whether or not somebody reads.

    Args:
        receive: the next message of an ASGI socket.
        most: bytes that may wait; None where a sender that nobody receives from waits itself.
    """

    def __init__(self, receive: Callable[[], Awaitable[Raw]], most: int | None) -> None:
        self._receive, self._most = receive, most
        self._waiting: deque[tuple[float, Raw]] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._fill())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def next(self) -> tuple[float, Raw]:
        """Return when the next message came, by the monotonic clock, and the message, as soon as there is one.

        Raises:
            TooFarAhead: too much waits already.
        """
        while not self._waiting:
            await self._change()
        if self._most is not None and self._bytes > self._most:
            raise TooFarAhead
        came, raw = self._waiting.popleft()
        self._bytes -= _size(raw)
        self._changed.set()
        return came, raw

    async def _fill(self) -> None:
        """Receive until the client has left or, where that helps, while little waits."""
        while True:
            while self._bytes > (PAUSED_BYTES if self._most is None else self._most):
                await self._change()
            try:
                raw = await self._receive()
            except RuntimeError:  # it has left already
                raw = {"type": "websocket.disconnect"}
            self._waiting.append((time.monotonic(), raw))
            self._bytes += _size(raw)
            self._changed.set()
            if raw["type"] == "websocket.disconnect":
                return

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def _size(raw: Raw) -> int:
    return len(raw.get("bytes") or raw.get("text") or "")
