"""Streams from worker processes: order, bounded memory, crashes, hangs, errors, and an early end."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import descendants

from raysr.corpus.ordered import stream_in_workers
from raysr.corpus.workers import WorkerDied


def count_up(task: tuple[int, float]) -> Iterator[int]:
    number, pause = task
    for n in range(number):
        time.sleep(pause)
        yield n


def stumble(task: int) -> Iterator[int]:
    yield task
    if task == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == 4:
        time.sleep(1000)
    yield -task


def fail(task: int) -> Iterator[int]:
    yield task
    raise ValueError(f"task {task}")


def megabytes(task: tuple[int, str]) -> Iterator[bytes]:
    count, folder = task
    for n in range(count):
        Path(folder, f"{n}").touch()
        yield bytes(1 << 20)


def size(result: Any) -> int:
    return len(result) if isinstance(result, bytes) else 0


def test_results_come_in_the_order_of_their_tasks():
    tasks = [(n % 5, 0.01 * (n % 3)) for n in range(40)]
    expected = [(task, n) for task in tasks for n in range(task[0])]
    assert list(stream_in_workers(count_up, iter(tasks), 3, size=size)) == expected


def test_a_crash_and_a_hang_end_their_own_task_alone():
    found = list(stream_in_workers(stumble, range(7), 2, size=size, patience=3))
    outcome = [(task, result if not isinstance(result, WorkerDied) else "died") for task, result in found]
    expected = [(task, sign * task) for task in range(7) for sign in (1, -1)]
    assert outcome == [(t, r) if (t, r) not in {(2, -2), (4, -4)} else (t, "died") for t, r in expected]


def test_an_error_of_the_function_or_of_the_tasks_is_the_callers():
    with pytest.raises(ValueError, match="task 0"):
        list(stream_in_workers(fail, range(3), 2, size=size))

    def tasks() -> Iterator[tuple[int, float]]:
        yield 1, 0.0
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        list(stream_in_workers(count_up, tasks(), 1, size=size))


def test_results_that_wait_for_their_turn_are_bounded(tmp_path: Path):
    stream = stream_in_workers(megabytes, [(200, str(tmp_path))], 1, size=size)
    next(stream)
    time.sleep(2)
    assert len(list(tmp_path.iterdir())) < 60
    assert sum(1 for _ in stream) == 199


def test_who_stops_early_leaves_no_process():
    before = descendants(os.getpid())
    stream = stream_in_workers(count_up, [(1000, 0.01)] * 50, 3, size=size)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert descendants(os.getpid()) <= before
