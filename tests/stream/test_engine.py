"""Sessions that share an encoder's batch hear what each hears alone, whatever the others do, and none harms another."""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_session import finals, masked, same
from torch import Tensor
from toy_language import relative, sung

from raysr.pool import Recogniser
from raysr.stream.engine import Engine
from raysr.stream.events import Event, Final
from raysr.stream.session import Session
from raysr.stream.streaming_model import StreamingModel
from raysr.stream.together import Task, together

TEXTS = ["bad cafe, head ache, beg bad", "gab face, hag", "head", "", "cage bead"]
SLOTS = len(TEXTS)


def carried_out(tasks: list[Task]) -> list[list[Event]]:
    found = together(tasks)
    for one in found:
        assert not isinstance(one, Exception), one
    return found


CUTS = (1, 777, 1600, 8000, 40_000)


@settings(max_examples=25, deadline=None)
@given(
    packets=st.lists(st.sampled_from(CUTS[1:]), min_size=SLOTS, max_size=SLOTS),
    late=st.lists(st.integers(0, 20), min_size=SLOTS, max_size=SLOTS),
    seed=st.integers(0, 1000),
)
def test_batched_equals_alone_however_the_streams_are_cut_and_whoever_comes_when(
    recogniser: Recogniser, packets: list[int], late: list[int], seed: int
) -> None:
    model, rng = StreamingModel(recogniser, slots=SLOTS), np.random.default_rng(seed)
    audio = [sung(text, seed=number) for number, text in enumerate(TEXTS)]
    heard: list[list[Event]] = [[] for _ in TEXTS]
    sessions: dict[int, Session] = {}
    taken, going_on = [0] * SLOTS, set(range(SLOTS))
    for round in itertools.count():
        if not going_on:
            break
        tasks: dict[int, Task] = {}
        for number in sorted(going_on):
            if round < late[number] or rng.random() < 0.2:
                continue  # nothing to say in this round
            session = sessions.get(number) or sessions.setdefault(number, Session(model))
            rest = audio[number][taken[number] :]
            if len(rest):
                cut = packets[number] if rng.random() < 0.9 else CUTS[0]
                tasks[number] = session.push_task(rest[:cut])
                taken[number] += cut
            else:
                tasks[number] = session.finish_task()
                going_on.remove(number)
        for number, events in zip(tasks, carried_out(list(tasks.values())), strict=True):
            heard[number] += events
            if number not in going_on:
                sessions[number].leave()
    for samples, events in zip(audio, heard, strict=True):
        same([final for final in finals(events) if final.text], masked(recogniser, samples))


def test_a_newer_model_comes_in_one_by_one(recogniser: Recogniser) -> None:
    old = StreamingModel(recogniser, "old", slots=3)
    new = StreamingModel(relative(recogniser), "new", slots=3)
    samples = [sung("bad cafe, head ache", seed=seed) for seed in range(3)]
    sessions = [Session(old) for _ in samples]
    events: list[list[Event]] = [[] for _ in samples]
    for first in range(0, max(map(len, samples)), 1600):
        if first == 16000:  # all speak
            for session in sessions:
                session.adopt(new)
        pushed = [s.push_task(x[first : first + 1600]) for s, x in zip(sessions, samples, strict=True)]
        for mine, found in zip(events, carried_out(pushed), strict=True):
            mine += found
    for mine, found in zip(events, carried_out([s.finish_task() for s in sessions]), strict=True):
        mine += found
    for mine in events:
        assert [(f.text, f.model) for f in finals(mine)] == [("bad cafe", "old"), ("head ache", "new")]
    assert [old.streamer.join() for _ in range(3)], "all have left the old one"


def test_who_fails_fails_alone_and_the_engine_goes_on(recogniser: Recogniser) -> None:
    model = StreamingModel(recogniser, slots=2)
    sound, ill = Session(model), Session(model)
    samples = sung("bad cafe", seed=1)

    def failing() -> Task:
        yield from ill.push_task(samples)
        raise ValueError("of its own making")

    engine = Engine()
    try:
        found, failed = engine.submit(sound.push_task(samples)), engine.submit(failing())
        with pytest.raises(ValueError, match="of its own making"):
            failed.result(20)
        events = found.result(20) + engine.submit(sound.finish_task()).result(20)
        assert [final.text for final in finals(events)] == ["bad cafe"]
        engine.submit(ill.leave_task()).result(20)
        heard = Session(model).push(samples)
        assert heard[:1] == Session(StreamingModel(recogniser)).push(samples)[:1]
    finally:
        engine.close()


def test_a_step_that_fails_alone_ends_its_own_stream_and_no_other(
    recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, whole = StreamingModel(recogniser, slots=5), StreamingModel(recogniser)
    sessions = [Session(broken) for _ in range(5)]
    step = broken.streamer.step

    def failing(slots: list[int]) -> Any:
        if 3 in slots or len(slots) > 2:
            raise MemoryError("no more")
        return step(slots)

    monkeypatch.setattr(broken.streamer, "step", failing)
    samples = sung("bad cafe", seed=1)
    *five, other = together([s.push_task(samples) for s in [*sessions, Session(whole)]])
    assert [number for number, found in enumerate(five) if isinstance(found, MemoryError)] == [3]
    for found in (five[0], five[4]):
        assert isinstance(found, list)
        assert isinstance(other, list)
        assert [event.text for event in found] == [event.text for event in other]


def test_where_scores_fail_no_step_is_taken_twice(
    recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, whole = StreamingModel(recogniser, slots=3), StreamingModel(recogniser)
    sessions = [Session(broken) for _ in range(3)]
    log_probs = broken.streamer.log_probs

    def failing(outs: list[Tensor]) -> list[Tensor]:
        if len(outs) > 1:
            raise MemoryError("no more")
        return log_probs(outs)

    monkeypatch.setattr(broken.streamer, "log_probs", failing)
    samples = sung("bad cafe", seed=1)
    found = together([s.push_task(samples) for s in sessions])
    expected = [event.text for event in Session(whole).push(samples)]
    assert expected
    for one in found:
        assert isinstance(one, list)
        assert [event.text for event in one] == expected
    ended = together([s.finish_task() for s in sessions])
    assert all(isinstance(one, list) and isinstance(one[-1], Final) for one in ended)


def test_sessions_that_end_share_their_last_steps(recogniser: Recogniser) -> None:
    model, sizes = StreamingModel(recogniser, slots=SLOTS), list[int]()
    sessions = [Session(model) for _ in range(SLOTS)]
    samples = sung("head ache", seed=3)
    together([s.push_task(samples) for s in sessions])
    texts = together([s.finish_task() for s in sessions], lambda size, seconds: sizes.append(size))
    assert sizes
    assert set(sizes) == {SLOTS}
    other = Session(StreamingModel(recogniser))
    other.push(samples)
    (alone,) = finals(other.finish())
    assert [[final.text for final in finals(found)] for found in texts] == [[alone.text]] * SLOTS


def held() -> tuple[threading.Event, threading.Event, Callable[[], Task]]:
    """Return an event that tells that a task is carried out, one that lets it end, and the task."""
    busy, go_on = threading.Event(), threading.Event()

    def blocking() -> Task:
        busy.set()
        assert go_on.wait(20)
        yield from ()
        return []

    return busy, go_on, blocking


def test_a_round_takes_all_that_has_gathered(recogniser: Recogniser) -> None:
    model = StreamingModel(recogniser, slots=SLOTS)
    sessions = [Session(model) for _ in range(SLOTS)]
    busy, go_on, blocking = held()
    batches: list[int] = []
    step = model.streamer.step

    def counted(slots: list[int]) -> Any:
        found = step(slots)
        batches.append(len(found))
        return found

    model.streamer.step = counted

    engine = Engine()
    try:
        engine.submit(blocking())
        assert busy.wait(20)
        samples = sung("head ache", seed=3)[:16000]
        pushed = [engine.submit(session.push_task(samples)) for session in sessions]
        go_on.set()
        for future in pushed:
            future.result(20)
    finally:
        engine.close()
    assert set(batches) == {SLOTS}


def test_what_waits_when_the_engine_is_closed_is_cancelled(recogniser: Recogniser) -> None:
    busy, go_on, blocking = held()

    engine = Engine()
    running: Future[list[Event]] = engine.submit(blocking())
    assert busy.wait(20)
    late = engine.submit(Session(StreamingModel(recogniser)).push_task(np.zeros(1600, np.float32)))
    closing = threading.Thread(target=engine.close)
    closing.start()
    go_on.set()
    closing.join(20)
    assert running.result(0) == []
    assert late.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit(blocking())
