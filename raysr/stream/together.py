"""Tasks that stop where they need encoder frames, so that many of them can get theirs from one batch."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raysr.model.streaming import Streamer
from raysr.stream.events import Event


@dataclass(frozen=True, slots=True)
class Waiting:
    """A stream whose next window of features is complete: who waits is sent the encoder frames (t', D) of it."""

    streamer: Streamer
    slot: int


Task = Generator[Waiting, Tensor, list[Event]]
"""Something a session is asked for; it yields where it needs an encoder step, and returns what came of it."""


def alone(task: Task) -> list[Event]:
    """Carry out one task and return its events; raise what it raises."""
    (found,) = together([task])
    if isinstance(found, Exception):
        raise found
    return found


@torch.inference_mode()
def together(
    tasks: Sequence[Task], stepped: Callable[[int, float], object] = lambda size, seconds: None
) -> list[list[Event] | Exception]:
    """Carry out tasks of different sessions side by side: one encoder step serves all that wait for one.

    Nobody else may step their streamers meanwhile. Returns, for each task, its events, or the exception that ended
    it; the others go on. Where a step itself fails, smaller ones are tried, so that it ends only those for whom it
    fails alone.

    Args:
        tasks: each of another session.
        stepped: told how many shared a step, and its seconds.
    """
    found: dict[int, list[Event] | Exception] = {}
    waiting: dict[int, Waiting] = {}

    def resume(number: int, frames: Tensor | Exception | None) -> None:
        waiting.pop(number, None)
        task = tasks[number]
        try:
            if isinstance(frames, Exception):
                waiting[number] = task.throw(frames)
            else:
                waiting[number] = next(task) if frames is None else task.send(frames)
        except StopIteration as end:
            found[number] = end.value
        except Exception as error:
            found[number] = error

    for number in range(len(tasks)):
        resume(number, None)
    while waiting:
        streamer = next(iter(waiting.values())).streamer
        served = {number: w.slot for number, w in waiting.items() if w.streamer is streamer}
        started = time.perf_counter()
        frames = _stepped(streamer, sorted(served.values()))
        stepped(len(served), time.perf_counter() - started)
        for number, slot in served.items():
            resume(number, frames[slot])
    return [found[number] for number in range(len(tasks))]


def _stepped(streamer: Streamer, slots: list[int]) -> Mapping[int, Tensor | Exception]:
    """Return what a step brings by slot; where one fails, as for want of memory, each half is stepped by itself."""
    try:
        return streamer.step(slots)
    except Exception as error:
        if len(slots) == 1:
            return {slots[0]: error}
    half = len(slots) // 2
    return {**_stepped(streamer, slots[:half]), **_stepped(streamer, slots[half:])}
