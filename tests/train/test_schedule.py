"""The learning rate: warm-up is linear, decay reaches its end if it has one, and no step falls outside."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.train.job import ScheduleConfig
from raysr.train.optim import learning_rate_share


@given(st.integers(1, 5000), st.integers(0, 6000), st.sampled_from(["cosine", "linear", "constant", "noam"]))
def test_share_stays_within_bounds(steps, warmup, kind):
    config = ScheduleConfig(kind=kind, warmup_steps=warmup, final_share=0.1)
    assert all(
        0 < learning_rate_share(step, config, steps) <= 1 for step in range(0, steps + 1, max(1, steps // 50))
    )


def test_cosine_passes_its_known_points():
    config = ScheduleConfig(kind="cosine", warmup_steps=100)
    shares = [learning_rate_share(step, config, 1100) for step in (0, 49, 99, 100, 600, 1100)]
    assert shares == pytest.approx([0.01, 0.5, 1.0, 1.0, 0.5, 0.0])


@given(st.integers(1, 5000), st.integers(1, 4000), st.integers(0, 10**6))
def test_noam_is_the_rule_of_the_paper_over_its_peak(dim, warmup, step):
    def by_the_paper(number):
        return dim**-0.5 * min(number**-0.5, number * warmup**-1.5)

    config = ScheduleConfig(kind="noam", warmup_steps=warmup)
    share = learning_rate_share(step, config, 10**6)
    assert share == pytest.approx(by_the_paper(step + 1) / by_the_paper(warmup))


@given(st.integers(0, 4000), st.integers(0, 4000), st.floats(0, 1))
def test_noam_knows_no_end_and_stays_above_the_final_share(warmup, step, final_share):
    config = ScheduleConfig(kind="noam", warmup_steps=warmup, final_share=final_share)
    free = ScheduleConfig(kind="noam", warmup_steps=warmup)
    share = learning_rate_share(warmup + step, config, 10**5)
    assert share == learning_rate_share(warmup + step, config, 10**6)
    assert share == max(final_share, learning_rate_share(warmup + step, free, 10**5))


def test_noam_without_warm_up_begins_at_its_peak():
    config = ScheduleConfig(kind="noam", warmup_steps=0)
    assert [learning_rate_share(step, config, 100) for step in (0, 3, 99)] == pytest.approx([1.0, 0.5, 0.1])
