"""A live stream is stepped when there is something to do; where a client waits for answers, at every piece of audio."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from toy_language import sung

from raysr.serving import live
from raysr.serving.live import HELD_SECONDS, LiveStream, Step
from raysr.serving.settings import ServingConfig
from raysr.serving.state import ServerState
from raysr.stream.events import Final, transcript

RATE = 16000
CHUNK = 0.32


@asynccontextmanager
async def stream(pool: Path, eager: bool = False) -> AsyncIterator[LiveStream]:
    server = ServerState.build(ServingConfig.parse({"pool": str(pool)}))
    server.watcher.poll()
    async with server.stream("one", RATE, eager=eager) as stream:
        yield stream
    await asyncio.to_thread(server.engine.close)


async def listened(pool: Path, pieces: Sequence[np.ndarray], eager: bool) -> list[Step]:
    """Push pieces one after the other and return the steps."""
    async with stream(pool, eager) as heard:

        async def speak() -> None:
            for piece in pieces:
                await heard.push(piece)
                await asyncio.sleep(0.002)
            await heard.finish()

        speaking = asyncio.create_task(speak())
        steps = [step async for step in heard.steps()]
        await speaking
    return steps


def test_small_pieces_wait_until_there_is_something_to_do(pool: Path) -> None:
    samples = sung("bad cafe, head ache")
    pieces = [samples[first : first + RATE // 50] for first in range(0, len(samples), RATE // 50)]
    lazy, eager = (asyncio.run(listened(pool, pieces, eager)) for eager in (False, True))
    assert len(lazy) <= len(samples) / RATE / CHUNK + 3
    assert sum(step.pushes for step in lazy) == sum(step.pushes for step in eager) == len(pieces)
    texts = [transcript([event for step in steps for event in step.events]) for steps in (lazy, eager)]
    assert texts == ["bad cafe head ache"] * 2


def test_an_eager_stream_answers_a_piece_at_once(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HELD_SECONDS", 60.0)

    async def answered() -> list[int]:
        async with stream(pool, eager=True) as heard:
            steps, found = heard.steps(), []
            for _ in range(5):
                await heard.push(np.zeros(160, np.float32))
                async with asyncio.timeout(30):
                    found.append((await anext(steps)).pushes)
        return found

    assert asyncio.run(answered()) == [1] * 5


def test_audio_that_fills_no_chunk_is_heard_soon_and_never_counts_as_late(pool: Path) -> None:
    async def waited() -> tuple[float, float, list[float]]:
        async with stream(pool) as heard:
            steps, lags = heard.steps(), []
            began = time.monotonic()
            await heard.push(np.zeros(1600, np.float32))
            step = asyncio.ensure_future(anext(steps))
            while not step.done():
                lags.append(heard.lag)
                await asyncio.sleep(0.05)
            return (await step).heard, time.monotonic() - began, lags

    seconds, took, lags = asyncio.run(waited())
    assert seconds == pytest.approx(0.1)
    assert took >= 0.9 * HELD_SECONDS
    assert max(lags[: len(lags) // 2], default=0.0) == 0.0


def test_a_request_is_answered_whatever_follows_it(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HELD_SECONDS", 60.0)

    async def answered() -> list[str]:
        async with stream(pool) as heard:
            await heard.push(sung("bad cafe"))
            await heard.finalize()
            await heard.push(np.zeros(160, np.float32))  # too little for a step
            async with asyncio.timeout(30):
                async for step in heard.steps():
                    if step.asked:
                        return [event.text for event in step.events if isinstance(event, Final)]
        return []

    assert asyncio.run(answered()) == ["bad cafe"]
