"""Messages that wait: in order, with the time that they came at, bounded one way or the other."""

import asyncio
import contextlib
import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from endpoint import Server, messages, pcm16, said, until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from raysr.audio.encode import flac_bytes
from raysr.serving.backlog import PAUSED_BYTES, Backlog, TooFarAhead
from raysr.serving.settings import ServingConfig
from raysr.serving.state import ServerState

CLOSE = json.dumps({"type": "CloseStream"})
LEFT = {"type": "websocket.disconnect", "code": 1005}


class Socket:
    """Has messages, and then nothing more, not even an end."""

    def __init__(self, *waiting: dict[str, Any]) -> None:
        self.waiting = list(waiting)

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(0)
        if not self.waiting:
            await asyncio.Event().wait()
        return self.waiting.pop(0)


async def _left(socket: Socket, count: int) -> None:
    """Wait until so many messages are left, and see that it stays so."""
    async with asyncio.timeout(20):
        while len(socket.waiting) > count:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert len(socket.waiting) == count


def audio(size: int) -> dict[str, Any]:
    return {"type": "websocket.receive", "bytes": bytes(size)}


def test_messages_come_in_order_with_their_times_and_the_end_last() -> None:
    async def read() -> None:
        socket = Socket(audio(1), audio(2), LEFT)
        async with Backlog(socket.receive, None) as backlog:
            await asyncio.sleep(0.3)
            now = time.monotonic()
            found = [await backlog.next() for _ in range(3)]
            assert [len(raw.get("bytes", b"")) for _, raw in found] == [1, 2, 0]
            assert all(came < now - 0.1 for came, _ in found)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(backlog.next(), 0.05)

    asyncio.run(read())


def test_a_sender_that_can_be_slowed_down_is() -> None:
    async def read() -> None:
        socket = Socket(*(audio(PAUSED_BYTES // 2) for _ in range(9)))
        async with Backlog(socket.receive, None) as backlog:
            await _left(socket, 6)  # the third one was too much
            for _ in range(9):
                await asyncio.wait_for(backlog.next(), 5)

    asyncio.run(read())


def test_one_that_cannot_is_refused_when_it_is_too_far_ahead() -> None:
    async def read() -> None:
        socket = Socket(*(audio(1000) for _ in range(9)))
        async with Backlog(socket.receive, 2500) as backlog:
            await _left(socket, 6)
            with pytest.raises(TooFarAhead):
                await backlog.next()

    asyncio.run(read())


def test_who_floods_where_nothing_slows_it_down_is_told_so(start: Callable[..., Server]) -> None:
    server = start(backpressure=False, limits={"backlog_bytes": 1 << 20})
    with server.listen() as socket:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(200):
                socket.send(pcm16("bad cafe, ") * 8)
        found = messages(socket)
    assert found[-1]["variant"] == "TOO-FAST"
    assert "more than 1.05 MB wait to be heard" in found[-1]["description"]
    assert socket.close_code == 1008
    with server.listen() as socket:
        socket.send(pcm16("bad cafe"))
        socket.send(CLOSE)
        assert said(messages(socket)) == "bad cafe"


def test_a_long_message_is_heard_by_the_second(pool: Any) -> None:
    """Whoever sends minutes at once keeps nobody else waiting: rounds are short."""

    async def heard() -> tuple[list[float], list[int]]:
        server = ServerState.build(ServingConfig.parse({"pool": str(pool)}))
        server.watcher.poll()
        async with server.stream("one", 8000) as stream:

            async def speak() -> None:
                await stream.push(np.zeros(8000 * 20 + 100, np.float32))
                await stream.push(np.zeros(100, np.float32))
                await stream.finish()

            speaking = asyncio.create_task(speak())
            steps = [step async for step in stream.steps()]
            await speaking
        await asyncio.to_thread(server.engine.close)
        return [step.heard for step in steps], [step.pushes for step in steps]

    seconds, pushes = asyncio.run(heard())
    assert seconds[:20] == [float(n) for n in range(1, 21)]
    assert pushes[:20] == [0] * 20
    assert sum(pushes) == 2


def test_a_client_that_leaves_while_its_file_is_decoded_gives_its_place_back(server: Server) -> None:
    silence = flac_bytes(np.zeros(16000 * 1200, np.float32))  # twenty minutes, in a message
    assert len(silence) < 1 << 20
    address = server.url.replace("http", "ws") + "/v1/listen"
    client = connect(address, open_timeout=20)
    client.send(silence)
    client.send(CLOSE)
    until(lambda: taken(server) == 1)
    client.socket.shutdown(2)  # no more words
    client.socket.close()
    until(lambda: taken(server) == 0, seconds=60)


def taken(server: Server) -> int:
    with urllib.request.urlopen(f"{server.url}/healthz", timeout=20) as answer:
        return int(json.load(answer)["sessions"])
