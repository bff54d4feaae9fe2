"""Reading ahead changes when batches are made and nothing else: same batches, exact states, errors in their place."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.errors import AudioError
from raysr.text.tokeniser import Tokeniser
from raysr.train.batch import Batch, BatchMaker
from raysr.train.job import AugmentConfig
from raysr.train.reading.ahead import read_ahead
from raysr.train.reading.options import ReadingConfig, open_reader
from raysr.train.reading.stream import Streamed
from raysr.train.sampler import MixedSampler, shard
from tests.train.noise import CONFIG, files

AHEAD, THREADS = st.integers(1, 6), st.integers(1, 4)
LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=30)


def planned(sampler: MixedSampler, steps: int) -> Iterator[tuple[Callable[[], list[int]], dict[str, Any]]]:
    """Yield what makes each batch of indices, in a random time, and where the sampler stands after it."""
    for _ in range(steps):
        indices = sampler.next().tolist()
        pause = np.random.default_rng(sum(indices)).exponential(3e-4)
        yield lambda indices=indices, pause=pause: time.sleep(pause) or indices, sampler.state_dict()


def sampler_of(lengths: list[int]) -> MixedSampler:
    return MixedSampler([lengths], [1.0], 500, 0.3, seed=3)


@given(LENGTHS, AHEAD, THREADS, st.integers(0, 12))
def test_items_come_in_order_with_their_states(
    lengths: list[int], ahead: int, threads: int, steps: int
) -> None:
    plain = sampler_of(lengths)
    expected = [(plain.next().tolist(), plain.state_dict()) for _ in range(steps)]
    found = read_ahead(planned(sampler_of(lengths), steps), ahead, threads)
    assert [(ready.item, ready.state) for ready in found] == expected


@given(LENGTHS, AHEAD, THREADS, st.integers(1, 8))
def test_a_training_goes_on_from_any_step(lengths: list[int], ahead: int, threads: int, stop: int) -> None:
    unbroken = [ready.item for ready in read_ahead(planned(sampler_of(lengths), 12), 1, 1)]
    with closing(read_ahead(planned(sampler_of(lengths), 12), ahead, threads)) as before:
        first = [next(before) for _ in range(stop)]
    again = sampler_of(lengths)
    again.load_state_dict(json.loads(json.dumps(first[-1].state)))
    rest = read_ahead(planned(again, 12 - stop), threads, ahead)
    assert [ready.item for ready in (*first, *rest)] == unbroken


@given(AHEAD, THREADS)
@settings(max_examples=20)
def test_no_more_is_made_than_it_may_be_ahead(ahead: int, threads: int) -> None:
    drawn, made = [], []

    def tasks() -> Iterator[tuple[Callable[[], None], int]]:
        for n in range(20):
            drawn.append(n)
            yield partial(made.append, n), n

    for number, ready in enumerate(read_ahead(tasks(), ahead, threads)):
        assert ready.state == number
        assert len(drawn) == min(20, number + 1 + ahead)
    assert sorted(made) == list(range(20))


def test_an_error_comes_at_its_step(tmp_path: Path) -> None:
    utterances = files(tmp_path, 6)
    Path(utterances[4].audio).unlink()
    reader = Streamed(CONFIG)
    before = threading.active_count()
    found = read_ahead(((partial(reader.get, u), u.id) for u in utterances), 3, 2)
    assert [next(found).state for _ in range(4)] == ["u0", "u1", "u2", "u3"]
    with pytest.raises(AudioError, match=r"utterance u4: .*no such file"):
        next(found)
    assert threading.active_count() == before


def test_closing_ends_the_threads_and_begins_nothing_more() -> None:
    begun: list[int] = []
    go_on = threading.Event()

    def make(n: int) -> int:
        begun.append(n)
        assert n == 0 or go_on.wait(60)
        return n

    before = threading.active_count()
    found = read_ahead(((partial(make, n), n) for n in range(100)), ahead=8, threads=2)
    assert next(found).item == 0
    threading.Timer(0.2, go_on.set).start()
    found.close()
    assert set(begun) <= {0, 1, 2}
    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)  # the timer's own thread
    assert threading.active_count() == before


def test_a_step_says_how_long_it_waited() -> None:
    ready = next(read_ahead([(partial(time.sleep, 0.2), None)], ahead=1, threads=1))
    assert ready.waited > 0.1


def test_reading_nothing_ahead_is_refused() -> None:
    for ahead, threads in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="one item and one thread at least"):
            next(read_ahead([], ahead, threads))


def assert_equal(one: Batch, other: Batch) -> None:
    assert all(map(torch.equal, (*one.tensors, one.weights), (*other.tensors, other.weights)))


@pytest.mark.parametrize("options", [{}, {"cache": "disk", "disk_gb": 1e-4}, {"load_to_memory": True}])
def test_batches_are_the_same_whatever_threads_and_reader(tmp_path: Path, options: dict[str, object]) -> None:
    utterances = files(tmp_path / "files", 12)
    tokeniser = Tokeniser.train([u.text or "" for u in utterances])
    augment = AugmentConfig.parse({"background": {"share": 0.5, "pieces": 2}})

    def tasks(maker: BatchMaker) -> Iterator[tuple[Callable[[], Batch], None]]:
        sampler = MixedSampler([[maker.reader.frames(u) for u in utterances]], [1.0], 150, 0.5, seed=1)
        for step in range(20):
            mine = shard(sampler.next(), 0, 2)
            yield partial(maker.make, mine, torch.Generator().manual_seed(step)), None

    alone = BatchMaker(utterances, Streamed(CONFIG), tokeniser, augment)
    expected = [make() for make, _ in tasks(alone)]
    config = ReadingConfig.parse({"stream": True} | options)
    with open_reader(config, CONFIG, tmp_path / "cache", utterances, pytest.fail, pytest.fail) as reader:
        maker = BatchMaker(utterances, reader, tokeniser, augment)
        for ahead, threads in ((1, 1), (5, 3)):
            for batch, ready in zip(expected, read_ahead(tasks(maker), ahead, threads), strict=True):
                assert_equal(batch, ready.item)
