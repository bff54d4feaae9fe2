"""Worker processes that run a module-level function over tasks, each with one thread.

They are plain Python processes joined by pipes rather than ``multiprocessing`` children, so they never
import the caller's ``__main__`` again (scripts without a guard, notebooks and Ray drivers are safe), may be
started by a process that is itself a worker, end when their parent dies however that happens, and take
nobody with them when native code crashes.
"""

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

from raysr.errors import RaysrError

Task = TypeVar("Task")
Result = TypeVar("Result")

_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS"), "1"
)
_READY = "ready"
DIED = (EOFError, BrokenPipeError, pickle.UnpicklingError)


class WorkerDied:
    """What a task gives whose worker process died under it: a crash in native code, or no memory left."""


def run_in_workers(
    function: Callable[[Task], Result], tasks: Iterable[Task], workers: int
) -> Iterator[tuple[Task, Result | WorkerDied]]:
    """Yield ``(task, function(task))`` as workers finish them, in no particular order.

    Raises:
        Exception: whatever ``function`` raises; the other workers are ended.
        RaysrError: the workers cannot start.
    """
    waiting = deque(tasks)
    expected = len(waiting)
    answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    running = [_Worker(function, waiting, answers) for _ in range(min(workers, expected))]
    try:
        for worker in running:
            worker.start()
        for _ in range(expected):
            task, answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            yield task, answer
    finally:
        waiting.clear()
        for worker in running:
            worker.stop()


class _Worker(threading.Thread):
    """Feeds one process; starts another when it dies."""

    def __init__(self, function: Callable[[Any], Any], waiting: "deque[Any]", answers: Any) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._waiting = waiting
        self._answers = answers
        self._process: WorkerProcess | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def run(self) -> None:
        while self._waiting and not self._stopped:
            try:
                task = self._waiting.popleft()
            except IndexError:
                return
            try:
                self._answers.put((task, self._call(task)))
            except Exception as error:
                self._answers.put((task, error))
                return

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()
        if self.ident is not None:
            self.join()

    def _call(self, task: Any) -> Any:
        with self._lock:
            if self._stopped:
                return WorkerDied()
            if self._process is None:
                self._process = WorkerProcess()
            process = self._process
        try:
            return process.call(self._function, task)
        except DIED:
            process.kill()
            self._process = None
            return WorkerDied()


class WorkerProcess:
    """One process, which runs one function at a time."""

    def __init__(self) -> None:
        path = os.pathsep.join(os.path.abspath(part) for part in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": path},
        )
        self._ready = False

    def call(self, function: Callable[[Any], Any], task: Any) -> Any:
        """Return what the function returns or the error that it raises.

        Raises:
            DIED: the process died under it.
            RaysrError: the process cannot start.
        """
        self._send(function, task)
        return self._read()

    def stream(self, function: Callable[[Any], Iterator[Any]], task: Any) -> Iterator[Any]:
        """Yield what a generator function yields, as it comes; raise as :meth:`call`, or what it raises."""
        self._send(function, task)
        while (answer := self._read()) is not None:
            if isinstance(answer, BaseException):
                raise answer
            yield answer

    def _wait_ready(self) -> None:
        if self._ready:
            return
        try:
            self._ready = self._read() == _READY
        except EOFError:
            raise RaysrError(
                f"a worker process did not start (exit code {self._process.wait()}): see its output above"
            ) from None

    def _send(self, function: Callable[[Any], Any], task: Any) -> None:
        self._wait_ready()
        assert self._process.stdin is not None
        pickle.dump((function, task), self._process.stdin)
        self._process.stdin.flush()

    def terminate(self) -> None:
        """End the process; who waits for its answer learns that it died."""
        self._process.kill()

    def kill(self) -> None:
        """End the process and free what it held; for the thread that uses it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return pickle.load(self._process.stdout)


def serve() -> None:
    """Be a worker: answer the tasks on standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _send(answers, _READY)
    while True:
        try:
            function, task = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)
        try:
            answer = function(task)
            if isinstance(answer, Generator):
                for item in answer:
                    _send(answers, item)
                answer = None
        except Exception as error:
            answer = error
        _send(answers, answer)


def _send(answers: Any, answer: Any) -> None:
    try:
        pickle.dump(answer, answers)
        answers.flush()
    except BrokenPipeError:
        os._exit(0)
