"""Tasks that stop where they need encoder frames, so that many of them can get theirs from one batch."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from raysr.model.streaming import Streamer
from raysr.stream.events import Event

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A stream that is due for a step: who waits is sent what it brings."""

    streamer: Streamer
    slot: int


class Encoded(NamedTuple):
    """Encoder frames (t', D) of a stream, and their natural-log CTC posteriors (t', V) on the CPU."""

    out: Tensor
    log_probs: Tensor


Task = Generator[Waiting, Encoded, list[Event]]
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

    def resume(number: int, frames: Encoded | Exception | None) -> None:
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
            resume(
                number, frames.get(slot, RuntimeError(f"the stream in slot {slot} was not due for a step"))
            )
    return [found[number] for number in range(len(tasks))]


def _stepped(streamer: Streamer, slots: list[int]) -> dict[int, Encoded | Exception]:
    """Return what a step brings by slot."""

    def scores(slots: list[int]) -> dict[int, Encoded]:
        log_probs = streamer.log_probs([outs[slot] for slot in slots])
        return {slot: Encoded(outs[slot], own) for slot, own in zip(slots, log_probs, strict=True)}

    found = _halving(streamer.step, slots)
    outs = {slot: out for slot, out in found.items() if not isinstance(out, Exception)}
    failed = {slot: error for slot, error in found.items() if isinstance(error, Exception)}
    return {**_halving(scores, list(outs)), **failed}


def _halving(
    work: Callable[[list[int]], Mapping[int, Found]], slots: list[int]
) -> dict[int, Found | Exception]:
    """Return what work on slots brings of each; where it fails, as for want of memory, each half is tried by itself."""
    try:
        return dict(work(slots)) if slots else {}
    except Exception as error:
        if len(slots) == 1:
            return {slots[0]: error}
    half = len(slots) // 2
    return {**_halving(work, slots[:half]), **_halving(work, slots[half:])}
