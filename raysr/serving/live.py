"""One live stream: audio queued by the socket's reader, stepped by the engine, handed out as events in order."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np

from raysr.serving.keeping import Recording
from raysr.serving.metrics import Metrics
from raysr.serving.models import ModelWatcher
from raysr.stream.engine import Engine
from raysr.stream.events import Event
from raysr.stream.latency import Latency
from raysr.stream.session import Session
from raysr.stream.together import Task

STEP_SECONDS = 1.0

PAUSE_SECONDS = 2.0
"""Without audio or a request, after which a stream takes a newer model whatever was open: an old one has to go."""

HELD_SECONDS = 1.0
"""That audio waits at most for what it lacks to be recognised."""

_Command = np.ndarray | Literal["finalize", "finish", "refresh"]


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of a session brought.

    Attributes:
        events: in order.
        heard: seconds of audio recognised so far.
        lag: seconds since audio could be recognised that is not yet.
        pushes: how many pieces of audio it ends, which were pushed one by one.
        asked: whether it answers a request for a final.
    """

    events: tuple[Event, ...]
    heard: float
    lag: float
    pushes: int = 0
    asked: bool = False


class LiveStream:
    """Joins a socket to a :class:`Session`; every method runs on the event loop, every step in the engine.

    Audio waits here until there is enough of it for the encoder, so that a step costs the same however small the pieces
    are that it comes in.

    Args:
        session: the session to step; it takes the watcher's newest model at its next segment.
        rate: of the samples pushed, in Hz.
        metrics: where what is measured goes.
        queued_seconds: :meth:`push` waits while more audio than this is queued, so that a client that sends faster
            than we recognise is slowed down by its own socket and memory stays bounded.
        kept: takes what is said, as far as the configuration keeps it.
        eager: whether there is a step for each piece of audio at once, also where it brings nothing.
    """

    def __init__(
        self,
        session: Session,
        watcher: ModelWatcher,
        engine: Engine,
        metrics: Metrics,
        rate: int,
        queued_seconds: float,
        kept: Recording,
        eager: bool = False,
    ) -> None:
        self.received = 0.0
        self._kept = kept
        self._session, self._watcher, self._engine, self._metrics = session, watcher, engine, metrics
        self._latency = Latency()
        self._rate, self._limit, self._eager = rate, queued_seconds, eager
        self._inbox: deque[_Command] = deque()
        self._queued = 0  # samples in it
        self._requests = 0  # and what else
        self._due = session.due
        self._changed = asyncio.Condition()
        self._recognised = 0.0
        self._answered = time.monotonic()
        self._busy = False

    @property
    def waited(self) -> float:
        """Seconds since all was answered that was pushed or asked for; 0 while something is not."""
        return 0.0 if self._busy or self._inbox else time.monotonic() - self._answered

    @property
    def lag(self) -> float:
        """Seconds since audio could be recognised that is not yet."""
        waiting = 0.0 if self._eager or self._requests else self._due - 0.5 / self._rate
        return self._latency.age(self._recognised + waiting, time.monotonic())

    async def push(self, samples: np.ndarray, came: float | None = None) -> None:
        """Queue samples (N,) that came at a time of the monotonic clock; wait while too much is queued already."""
        came = time.monotonic() if came is None else came
        await self._kept.heard(samples)
        async with self._changed:
            await self._changed.wait_for(lambda: self._queued < self._limit * self._rate)
            is_first = not self._inbox
            self._inbox.append(samples)
            self._queued += len(samples)
            self.received += len(samples) / self._rate
            self._latency.arrived(self.received, came)
            if is_first or self._ready():
                self._changed.notify_all()

    async def finalize(self) -> None:
        """Ask for the final text of everything pushed so far; the stream goes on."""
        await self._put("finalize")

    async def finish(self) -> None:
        """Say that the audio ended: the last finals follow, then :meth:`steps` ends."""
        await self._put("finish")

    async def steps(self) -> AsyncIterator[Step]:
        """Yield every step until :meth:`finish` has been answered."""
        while True:
            async with self._changed:
                await self._wait(lambda: bool(self._inbox), PAUSE_SECONDS)
                if self._inbox:
                    await self._wait(self._ready, HELD_SECONDS)
                self._busy = bool(self._inbox)
                command, pushes = self._take()
                self._changed.notify_all()
            self._adopt()
            heard = self._session.heard
            events = await self._engine.run(self._task(command))
            self._recognised, self._due = self._session.heard, self._session.due
            self._measure(events, self._recognised - heard)
            await self._kept.said(events)
            asked = isinstance(command, str) and command != "refresh"
            yield Step(tuple(events), self._recognised, self.lag, pushes, asked)
            if self._busy:
                self._busy, self._answered = False, time.monotonic()
            if isinstance(command, str) and command == "finish":
                return

    async def _put(self, command: Literal["finalize", "finish"]) -> None:
        async with self._changed:
            self._latency.asked(time.monotonic())
            self._inbox.append(command)
            self._requests += 1
            self._changed.notify_all()

    def _adopt(self) -> None:
        """Have the session take the newest model; what a traceback of :meth:`steps` keeps alive is no model."""
        if (newest := self._watcher.current) is not None:
            self._session.adopt(newest.streaming)

    def _measure(self, events: list[Event], seconds: float) -> None:
        self._metrics.record("audio_seconds", seconds)
        for late in self._latency.seen(events, time.monotonic()):
            tags = {"cause": late.cause} if late.what == "final" else {}
            self._metrics.record(f"{late.what}_seconds", late.seconds, **tags)

    def _ready(self) -> bool:
        """Whether there is a request, or enough audio."""
        if self._eager or self._requests:
            return bool(self._inbox)
        return self._queued + 0.5 >= min(self._due, self._limit) * self._rate

    async def _wait(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for a condition, so long at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait_for(condition)

    def _take(self) -> tuple[_Command, int]:
        """Return the next command, and how many pieces of audio end with it.

        Audio comes by the second at most, so that no stream keeps the others waiting: neighbours are joined, a long
        piece is cut.
        """
        if not self._inbox:
            return "refresh", 0
        most = round(STEP_SECONDS * self._rate)
        first = self._inbox.popleft()
        if isinstance(first, str):
            self._requests -= 1
            return first, 0
        if len(first) > most:
            self._inbox.appendleft(first[most:])
            self._queued -= most
            return first[:most], 0
        pieces, length = [first], len(first)
        while self._inbox and not isinstance(self._inbox[0], str) and length + len(self._inbox[0]) <= most:
            piece = self._inbox.popleft()
            assert not isinstance(piece, str)
            pieces.append(piece)
            length += len(piece)
        self._queued -= length
        return np.concatenate(pieces), len(pieces)

    def _task(self, command: _Command) -> Task:
        if not isinstance(command, str):
            return self._session.push_task(command)
        match command:
            case "finalize":
                return self._session.finalize_task()
            case "finish":
                return self._session.finish_task()
            case "refresh":
                return self._session.refresh_task()
