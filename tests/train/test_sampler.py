"""The sampler: every utterance once an epoch, global batches alike for any number of ranks, O(1) resume."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raysr.train.sampler import BatchStream, MixedSampler, shard, weight

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 2000), st.integers(0, 5))
def test_an_epoch_holds_every_utterance_once_within_the_budget(frames, budget, seed):
    stream = BatchStream(frames, budget, seed)
    seen = []
    while stream.position.epoch == 0:
        batch = stream.next()
        seen.extend(batch.tolist())
        assert len(batch) == 1 or max(frames[i] for i in batch) * len(batch) <= budget
    assert sorted(seen) == list(range(len(frames)))


@given(LENGTHS, LENGTHS, st.floats(0.1, 0.9), st.integers(0, 40))
def test_a_restored_sampler_goes_on_with_the_same_batches(labelled, pseudo, share, steps):
    first = MixedSampler(labelled, pseudo, 1000, share, seed=3)
    for _ in range(steps):
        first.next()
    second = MixedSampler(labelled, pseudo, 1000, share, seed=3)
    second.load_state_dict(first.state_dict())
    for _ in range(5):
        np.testing.assert_array_equal(first.next(), second.next())


@given(LENGTHS, st.integers(1, 7))
def test_weighted_shares_of_all_ranks_add_up_to_the_global_mean(losses, world_size):
    batch = np.arange(len(losses))
    values = np.array(losses, dtype=float)
    shares = [
        weight(len(batch), rank, world_size) * values[shard(batch, rank, world_size)].sum()
        for rank in range(world_size)
    ]
    np.testing.assert_allclose(np.mean(shares), values.mean())


@given(LENGTHS, st.integers(1, 7))
def test_every_rank_has_something_to_do(frames, world_size):
    batch = np.arange(len(frames))
    parts = [shard(batch, rank, world_size) for rank in range(world_size)]
    assert all(len(part) for part in parts)
    assert set(np.concatenate(parts).tolist()) == set(batch.tolist())


def test_labelled_seconds_keep_their_share_of_every_batch():
    sampler = MixedSampler([100] * 51, [100] * 490, 1000, 0.3, seed=0)
    for _ in range(20):
        batch = sampler.next()
        assert (batch < 51).sum() == 3
        assert (batch >= 51).sum() == 7


def test_epochs_differ_in_order():
    stream = BatchStream(list(range(100, 200)), 1000, seed=0)
    epochs = []
    for epoch in range(2):
        batches = []
        while stream.position.epoch == epoch:
            batches.append(tuple(stream.next().tolist()))
        epochs.append(batches)
    assert epochs[0] != epochs[1]
