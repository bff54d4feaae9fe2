"""Bootstrap intervals agree with exhaustive resampling and with the normal approximation, and stay paired."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.evaluate.bootstrap import Interval, difference_interval, recovery_interval, wer_interval


def exhaustive(statistic: Callable[[list[int]], float], utterances: int, level: float) -> tuple[float, float]:
    """Return the exact percentile interval: every one of the N^N resamples, once."""
    draws = itertools.product(range(utterances), repeat=utterances)
    values = np.sort([statistic(list(draw)) for draw in draws])
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


def test_few_utterances_give_the_interval_of_all_their_resamples() -> None:
    errors, words = np.array([0, 1, 5, 2, 0]), np.array([7, 3, 11, 5, 2])
    found = wer_interval(errors, words, draws=200_000, level=0.8)
    low, high = exhaustive(lambda i: errors[i].sum() / words[i].sum(), 5, 0.8)
    assert found.estimate == pytest.approx(8 / 28)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))


def test_recovery_of_few_utterances_gives_the_interval_of_all_their_resamples() -> None:
    control, student, oracle = np.array([9, 8, 7, 9, 6]), np.array([5, 7, 4, 6, 5]), np.array([2, 3, 1, 2, 2])
    found = recovery_interval(control, student, oracle, draws=200_000, level=0.8)
    low, high = exhaustive(lambda i: (control - student)[i].sum() / (control - oracle)[i].sum(), 5, 0.8)
    assert found.estimate == pytest.approx(12 / 29)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))


def test_many_utterances_give_the_normal_interval_of_a_mean() -> None:
    errors = np.random.default_rng(1).binomial(10, 0.2, 2000)
    found = wer_interval(errors, np.full(2000, 10), draws=20_000)
    half = 1.96 * errors.std() / 10 / np.sqrt(2000)
    assert found.low == pytest.approx(found.estimate - half, abs=0.05 * half)
    assert found.high == pytest.approx(found.estimate + half, abs=0.05 * half)


def test_pairing_removes_what_both_systems_share() -> None:
    generator = np.random.default_rng(2)
    shared = generator.integers(0, 8, 400)
    better = np.maximum(shared - generator.binomial(1, 0.3, 400), 0)
    found = difference_interval(shared, better, np.full(400, 8))
    alone = wer_interval(shared, np.full(400, 8))
    assert 0 < found.low < found.estimate < found.high
    assert found.high - found.low < (alone.high - alone.low) / 3


@given(st.integers(1, 4), st.integers(1, 30), st.integers(0, 5))
@settings(max_examples=20)
def test_the_estimate_pools_all_runs(runs: int, utterances: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    errors = generator.integers(0, 5, (runs, utterances))
    words = generator.integers(1, 9, utterances)
    found = wer_interval(errors, words, draws=200)
    assert found.estimate == pytest.approx(errors.sum() / (runs * words.sum()))
    assert found.low <= found.high
    assert found == wer_interval(errors, words, draws=200)


def test_equal_systems_differ_by_exactly_nothing() -> None:
    errors = np.arange(12).reshape(3, 4)
    assert difference_interval(errors, errors, np.ones(4), draws=100) == Interval(0.0, 0.0, 0.0)


def test_an_oracle_that_is_sometimes_worse_takes_the_lower_bound_away() -> None:
    control, student, oracle = np.array([5, 0]), np.array([4, 0]), np.array([0, 4])
    found = recovery_interval(control, student, oracle, draws=500)
    assert found.estimate == pytest.approx(1.0)
    assert found.low == -np.inf


def test_nothing_to_resample_and_unpaired_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="no utterance"):
        wer_interval([], [])
    with pytest.raises(ValueError, match="paired"):
        difference_interval(np.ones((2, 3)), np.ones((1, 3)), np.ones(3))
