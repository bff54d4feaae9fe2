"""Training steps in float32, bfloat16 and, by scaled losses, float16."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

from raysr.train.check.bench import Bench, Learning
from raysr.train.check.finding import Finding, faults
from raysr.train.precision import choose

HALVES = ("bf16", "fp16")
TOO_LARGE = 2.0**24
"""A scale under which gradients of a loss leave float16."""
NEAR = 0.25
"""So much of the fall of the loss in float32 may be missing in halves."""
LAST = 5  # losses are compared by the mean of so many


def check_types(bench: Bench) -> Iterator[Finding]:
    """Train alike in all types: the loss falls as in float32, and what overflows is skipped and counted."""
    whole = _steps(bench, "fp32")
    yield _finding(whole, whole)
    for name in HALVES:
        yield _finding(_steps(bench, name), whole)


@dataclass(frozen=True)
class _Run:
    """Steps in a type; ``seconds`` are those of a step, without the first one."""

    name: str
    losses: list[float]
    skipped: int
    scale: float
    seconds: float

    @property
    def first(self) -> float:
        return self.losses[0]

    @property
    def last(self) -> float:
        return sum(self.losses[-LAST:]) / LAST


def _steps(bench: Bench, name: str) -> _Run:
    """Take steps in a type, with a scale that is too large in the middle where the loss is scaled."""
    precision = choose(name, bench.device, insist=True)
    learning = Learning(bench.fresh().to(bench.device), bench.batch, precision)
    losses = [learning.step()]
    begun = time.perf_counter()
    while learning.stepper.steps - learning.stepper.skipped < bench.size.steps:
        losses.append(learning.step())
        if precision.scaler.is_enabled() and len(losses) == bench.size.steps // 2:
            precision.scaler.update(TOO_LARGE)
    seconds = (time.perf_counter() - begun) / (len(losses) - 1)
    return _Run(name, losses, learning.stepper.skipped, precision.scaler.get_scale(), seconds)


def _finding(run: _Run, whole: _Run) -> Finding:
    scaled = run.name == "fp16"
    fallen, expected = run.first - run.last, whole.first - whole.last
    said = (
        f"loss {run.first:.1f} to {run.last:.1f} in {len(run.losses)} steps of {1000 * run.seconds:.1f} ms, "
        f"{run.skipped} skipped"
    )
    found = faults(
        a_loss_is_not_finite=not all(map(math.isfinite, run.losses)),
        the_loss_has_not_fallen=not run.last < 0.9 * run.first,
        it_falls_otherwise_than_in_fp32=not abs(fallen - expected) < NEAR * expected,
        steps_were_skipped=run.skipped > 0 and not scaled,
        no_step_overflowed=run.skipped == 0 and scaled,
        the_scale_has_not_come_down=scaled and not run.scale < TOO_LARGE,
    )
    numbers = {
        "first_loss": run.first,
        "last_loss": run.last,
        "steps": len(run.losses),
        "skipped": run.skipped,
        "scale": run.scale,
        "seconds_per_step": run.seconds,
    }
    return Finding(f"steps in {run.name}", said, numbers, found)
