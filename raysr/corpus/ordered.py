"""Streams of results from worker processes: in the order of their tasks, in bounded memory."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from raysr.corpus.workers import DIED, WorkerDied, WorkerProcess

Task = TypeVar("Task")
Result = TypeVar("Result")

_TASKS_AHEAD = 8
_BYTES_AHEAD = 256 << 20
_GLANCE_S = 1.0


def stream_in_workers(
    function: Callable[[Task], Iterator[Result]],
    tasks: Iterable[Task],
    workers: int,
    *,
    size: Callable[[Result], int],
    patience: float = 600.0,
) -> Iterator[tuple[Task, Result | WorkerDied]]:
    """Yield ``(task, result)`` for everything that the generator function yields for each task, in order.

    Tasks are drawn from ``tasks`` a few ahead of the results, in the caller's thread. Results that wait for
    their turn hold no more than a quarter of a gigabyte together; workers whose results find no room wait.

    Args:
        function: a generator function at the top of its module.
        tasks: any iterable; it may be lazy and as long as it likes.
        workers: processes.
        size: bytes of memory that a result holds.
        patience: seconds without a result after which a worker counts as hung, and is ended.

    The last result of a task whose process died, or hung, is a :class:`WorkerDied`.

    Raises:
        Exception: whatever ``function`` or ``tasks`` raises; the workers are ended.
    """
    room = _Room(_BYTES_AHEAD // max(1, workers * _TASKS_AHEAD))
    inbox: queue.SimpleQueue[_Stream | None] = queue.SimpleQueue()
    lanes = [_Lane(function, inbox) for _ in range(workers)]
    idle = list(lanes)
    waiting: deque[_Stream] = deque()
    source = iter(tasks)
    try:
        while True:
            while len(waiting) < workers * _TASKS_AHEAD and (task := next(source, room)) is not room:
                waiting.append(_Stream(task, room, size))
                inbox.put(waiting[-1])
                if idle:
                    idle.pop().start()
            if not waiting:
                return
            yield from waiting[0].results(patience)
            waiting.popleft()
    finally:
        room.close()
        for lane in lanes:
            lane.stop()
            inbox.put(None)
        for lane in lanes:
            if lane.ident is not None:
                lane.join()


class _Room:
    """What one stream may hold while it waits for its turn, and the condition that all share."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.closed = False
        self.changed = threading.Condition()

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()


class _Stream:
    """The results of one task on their way from a lane to the caller."""

    def __init__(self, task: Any, room: _Room, size: Callable[[Any], int]) -> None:
        self.task = task
        self._room = room
        self._size = size
        self._results: deque[Any] = deque()
        self._held = 0
        self._lane: _Lane | None = None
        self._ended = False
        self._last: Exception | WorkerDied | None = None
        self._moved = 0.0

    def begin(self, lane: "_Lane") -> None:
        with self._room.changed:
            self._lane = lane
            self._moved = time.monotonic()

    def put(self, result: Any) -> bool:
        """Add a result when there is room for it; return False when nobody wants it any more."""
        with self._room.changed:
            while self._held > self._room.limit and not self._room.closed:
                self._room.changed.wait()
            self._results.append(result)
            self._held += self._size(result)
            self._moved = time.monotonic()
            self._room.changed.notify_all()
            return not self._room.closed

    def end(self, last: Exception | WorkerDied | None = None) -> None:
        with self._room.changed:
            self._ended, self._last = True, last
            self._room.changed.notify_all()

    def results(self, patience: float) -> Iterator[tuple[Any, Any]]:
        """Yield the results; end the process that gives none for ``patience`` seconds."""
        while self._wait(patience):
            with self._room.changed:
                result = self._results.popleft()
                self._held -= self._size(result)
                self._room.changed.notify_all()
            yield self.task, result
        if isinstance(self._last, Exception):
            raise self._last
        if self._last is not None:
            yield self.task, self._last

    def _wait(self, patience: float) -> bool:
        """Wait for a result; return False when there will be none."""
        with self._room.changed:
            while not self._results and not self._ended:
                self._room.changed.wait(_GLANCE_S)
                if self._lane and time.monotonic() - self._moved > patience:
                    self._lane.interrupt()
            return bool(self._results)


class _Lane(threading.Thread):
    """Runs the function over streams, one after the other, in a process that it starts anew when it dies."""

    def __init__(self, function: Callable[[Any], Iterator[Any]], inbox: Any) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._inbox = inbox
        self._process: WorkerProcess | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def run(self) -> None:
        while (stream := self._inbox.get()) is not None:
            stream.begin(self)
            try:
                stream.end(self._fill(stream))
            except Exception as error:
                stream.end(error)
        if self._process is not None:
            self._process.kill()

    def interrupt(self) -> None:
        """End the process, whatever it is doing."""
        with self._lock:
            if self._process is not None:
                self._process.terminate()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
        self.interrupt()

    def _fill(self, stream: _Stream) -> WorkerDied | None:
        with self._lock:
            if self._stopped:
                return None
            self._process = self._process or WorkerProcess()
        try:
            for result in self._process.stream(self._function, stream.task):
                if not stream.put(result):
                    break
        except DIED:
            self._process.kill()
            self._process = None
            return WorkerDied()
        return None
