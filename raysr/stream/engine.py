"""The engine: one thread that carries out what many sessions are asked for, all that is there in one go."""

import asyncio
import contextlib
import ctypes
import threading
import time
from collections import deque
from concurrent.futures import Future

import torch

from raysr.stream.events import Event
from raysr.stream.together import Task, together

Job = tuple[Task, "Future[list[Event]]"]


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


class Meter:
    """Takes what an engine measures; this one leaves it at that."""

    def stepped(self, size: int, seconds: float) -> None:
        """Note a step of the encoder that so many sessions have shared."""

    def rounded(self, seconds: float) -> None:
        """Note a round: steps, features and decoding."""


class Engine:
    """Carries out tasks of sessions side by side until it is closed.

    While a round is carried out, the next one's tasks gather: batches grow with the load, and nobody waits for company.
    The engine's thread is the only one that touches what sessions share.

    Args:
        threads: of torch, for the encoder's batches.
        meter: told of steps and rounds, in the engine's thread.
    """

    def __init__(self, threads: int = 1, meter: Meter | None = None) -> None:
        self._threads, self._meter = threads, meter or Meter()
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="raysr-engine", daemon=True)
        self._thread.start()

    def submit(self, task: Task) -> "Future[list[Event]]":
        """Have a task carried out in the next round; a session may have one at a time.

        Raises:
            RuntimeError: the engine is closed.
        """
        future: Future[list[Event]] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the engine is closed")
            self._jobs.append((task, future))
            self._changed.notify()
        return future

    async def run(self, task: Task) -> list[Event]:
        """Have a task carried out and wait for it on the event loop; cancelled before its round, it never begins."""
        return await asyncio.wrap_future(self.submit(task))

    def close(self) -> None:
        """Let the round that is being carried out end, and cancel all other tasks."""
        with self._changed:
            self._closed = True
            waiting = list(self._jobs)
            self._jobs.clear()
            self._changed.notify()
        for _, future in waiting:
            future.cancel()
        self._thread.join()

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        _keep_what_is_freed()
        while jobs := self._next():
            jobs = [(task, future) for task, future in jobs if future.set_running_or_notify_cancel()]
            started = time.perf_counter()
            results = together([task for task, _ in jobs], self._meter.stepped)
            self._meter.rounded(time.perf_counter() - started)
            for (_, future), found in zip(jobs, results, strict=True):
                if isinstance(found, Exception):
                    future.set_exception(found)
                else:
                    future.set_result(found)

    def _next(self) -> list[Job]:
        """Return all tasks that are there, as soon as there is one; none once the engine is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            jobs = list(self._jobs)
            self._jobs.clear()
            return jobs


def _keep_what_is_freed() -> None:
    """Have this process keep what large batches free for the next ones, instead of asking the system anew each time.

    Of glibc: it would otherwise give blocks of megabytes back at once, and pay for their pages again.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        library.mallopt(M_TRIM_THRESHOLD, 128 << 20)
