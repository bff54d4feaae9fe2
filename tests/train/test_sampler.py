"""The sampler: every utterance once an epoch, shares kept, padding bounded, the same for any ranks, O(1) resume."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.train.cutting import cut, plan
from raysr.train.sampler import MixedSampler, Source, scale, shard, temperature_shares

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=60)
SOURCES = st.lists(st.tuples(LENGTHS, st.floats(0.05, 1)), min_size=1, max_size=4)
BUDGETS = st.integers(1, 3000)
PADDING = st.floats(0, 0.6)


def sampler(sources, budget=1000, max_padding=0.3, seed=3) -> MixedSampler:
    lengths, shares = zip(*sources, strict=True)
    return MixedSampler(lengths, shares, budget, max_padding, seed)


@given(LENGTHS, st.integers(0, 5))
def test_a_source_deals_every_utterance_once_an_epoch(frames, seed):
    source = Source(frames, 1.0, (seed,))
    for _ in range(3):
        assert sorted(source.next() for _ in frames) == list(range(len(frames)))


@given(LENGTHS, BUDGETS, PADDING)
def test_one_source_comes_whole_before_any_of_it_comes_again(frames, budget, max_padding):
    stream = sampler([(frames, 1.0)], budget, max_padding)
    seen: list[int] = []
    while len(seen) < 3 * len(frames):
        seen.extend(stream.next().tolist())
    # windows are cut inside of epochs when they are long, so the order is that of epochs to within a window
    counts = Counter(seen)
    assert set(counts) == set(range(len(frames)))
    if sum(frames) <= 8 * budget:
        assert sorted(seen[: len(frames)]) == list(range(len(frames)))


@given(SOURCES, BUDGETS, PADDING, st.integers(0, 5))
def test_every_batch_keeps_to_its_frames_and_its_padding(sources, budget, max_padding, seed):
    stream = sampler(sources, budget, max_padding, seed)
    for _ in range(30):
        lengths = stream.frames[stream.next()]
        cost = lengths.max() * len(lengths)
        assert len(lengths) == 1 or cost <= budget
        assert len(lengths) == 1 or cost - lengths.sum() <= max_padding * cost
        assert (np.diff(lengths) <= 0).all()


@given(SOURCES, BUDGETS, st.integers(1, 200))
def test_frames_keep_their_shares_however_long_the_run(sources, budget, steps):
    stream = sampler(sources, budget)
    for _ in range(steps):
        stream.next()
    total, longest = sum(s.dealt for s in stream.sources), max(stream.frames)
    for source in stream.sources:
        ahead = source.dealt - source.share * total
        assert -source.share * len(sources) * longest - 1e-6 <= ahead <= longest + 1e-6


def test_every_batch_has_its_share_of_each_source_where_lengths_are_alike():
    rng = np.random.default_rng(0)
    stream = sampler([(rng.integers(100, 900, 300), 0.3), (rng.integers(100, 900, 900), 0.7)], budget=20000)
    for _ in range(100):
        batch = stream.next()
        seconds = stream.frames[batch]
        assert 0.18 < seconds[batch < 300].sum() / seconds.sum() < 0.42


def test_sources_of_other_lengths_are_not_padded_to_each_other():
    frames, groups = np.repeat([100, 1000], 100), np.repeat([0, 1], 100)
    batches = plan(frames, groups, 4000, 0.3, np.random.default_rng(0))
    assert all(len(set(frames[batch])) == 1 for batch in batches)
    assert sum(len(batch) > 1 for batch in batches) == len(batches)


@given(LENGTHS, BUDGETS)
def test_no_cut_makes_fewer_batches_of_sorted_utterances(frames, budget):
    lengths = np.sort(frames)
    fewest = [0]
    for end in range(1, len(lengths) + 1):
        fits = (f for f in range(end) if end - f == 1 or lengths[end - 1] * (end - f) <= budget)
        fewest.append(1 + min(fewest[first] for first in fits))
    batches = cut(lengths, np.arange(len(lengths)), budget, max_padding=1)
    assert len(batches) == fewest[-1]
    assert np.concatenate(batches).tolist() == list(range(len(lengths)))


@given(SOURCES, st.integers(0, 60))
def test_a_restored_sampler_goes_on_with_the_same_batches(sources, steps):
    first = sampler(sources)
    for _ in range(steps):
        first.next()
    second = sampler(sources)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.state_dict() == first.state_dict()
    for _ in range(20):
        np.testing.assert_array_equal(first.next(), second.next())


def test_the_state_does_not_grow_with_the_corpus_or_the_run():
    stream = sampler([(range(1, 5000), 0.5), (range(1, 900), 0.5)])
    for _ in range(300):
        stream.next()
    assert len(json.dumps(stream.state_dict())) < 120


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(-5, 5)), min_size=1, max_size=40), st.integers(1, 7))
def test_scaled_sums_of_all_ranks_add_up_to_the_global_weighted_mean(batch, world_size):
    weights, losses = np.array(batch).T
    indices = np.arange(len(batch))
    parts = []
    for rank in range(world_size):
        mine = shard(indices, rank, world_size)
        parts.append(scale(weights, rank, world_size) * (weights[mine] * losses[mine]).sum())
    np.testing.assert_allclose(np.mean(parts), (weights * losses).sum() / weights.sum(), atol=1e-9)


@given(LENGTHS, st.integers(1, 7))
def test_every_rank_has_something_to_do(frames, world_size):
    batch = np.arange(len(frames))
    parts = [shard(batch, rank, world_size) for rank in range(world_size)]
    assert all(len(part) for part in parts)
    assert set(np.concatenate(parts).tolist()) == set(batch.tolist())


@given(SOURCES, BUDGETS, st.integers(1, 5))
def test_ranks_together_hold_no_more_padding_than_the_global_batch(sources, budget, world_size):
    stream = sampler(sources, budget)
    for _ in range(10):
        batch = stream.next()
        if len(batch) < world_size:
            continue
        lengths = stream.frames[batch]
        shards = [shard(lengths, rank, world_size) for rank in range(world_size)]
        assert sum(part.max() * len(part) for part in shards) <= lengths.max() * len(lengths)


def test_epochs_differ_in_their_batches():
    stream = sampler([(range(100, 200), 1.0)])
    epochs = []
    for _ in range(2):
        batches, left = [], 100
        while left:
            batches.append(tuple(stream.next().tolist()))
            left -= len(batches[-1])
        epochs.append({frozenset(batch) for batch in batches})
    assert len(epochs[0] & epochs[1]) < len(epochs[0]) / 2


def test_a_small_source_does_not_leave_remnants():
    stream = sampler([([100] * 11, 1.0)], budget=1000)
    assert sorted(len(stream.next()) for _ in range(4)) == [5, 5, 6, 6]


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=8), st.floats(1, 50))
def test_temperature_shares_follow_the_formula(hours, temperature):
    shares = temperature_shares(hours, temperature)
    powers = np.array(hours) ** (1 / temperature)
    np.testing.assert_allclose(shares, powers / powers.sum(), rtol=1e-9)


def test_temperature_goes_from_as_it_is_to_all_alike():
    assert temperature_shares([9, 1], 1) == pytest.approx([0.9, 0.1])
    assert temperature_shares([9, 1], 2) == pytest.approx([0.75, 0.25])
    assert temperature_shares([9, 1], float("inf")) == [0.5, 0.5]


def test_a_source_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one utterance"):
        MixedSampler([[5], []], [0.5, 0.5], 100, 0.2, 0)
