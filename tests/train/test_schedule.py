"""The learning rate: warm-up is linear, decay reaches its end, and no step falls outside."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.train.job import ScheduleConfig
from raysr.train.optim import learning_rate_share


@given(st.integers(1, 5000), st.integers(0, 6000), st.sampled_from(["cosine", "linear", "constant"]))
def test_share_stays_within_bounds(steps, warmup, kind):
    config = ScheduleConfig(kind=kind, warmup_steps=warmup, final_share=0.1)
    assert all(
        0 < learning_rate_share(step, config, steps) <= 1 for step in range(0, steps + 1, max(1, steps // 50))
    )


def test_cosine_passes_its_known_points():
    config = ScheduleConfig(kind="cosine", warmup_steps=100)
    shares = [learning_rate_share(step, config, 1100) for step in (0, 49, 99, 100, 600, 1100)]
    assert shares == pytest.approx([0.01, 0.5, 1.0, 1.0, 0.5, 0.0])
