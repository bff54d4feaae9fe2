"""Which exchange is fastest here, found by timing real steps before a training begins.

What a candidate takes at least is known beforehand: its bytes, over the bandwidth that an all-reduce was seen to have.
One that cannot win is not tried, so that a slow link costs seconds and not minutes. Those that come close to the
fastest are timed again in turns, since what else a machine does comes and goes.
"""

import copy
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from raysr.config import Config as Options
from raysr.config import Spec
from raysr.train.exchange.base import EXCHANGES, Exchange, ExchangeContext, Loss
from raysr.train.network.payload import numbers
from raysr.train.network.recommend import SETTINGS, AsOne, Setting
from raysr.train.network.timing import median_seconds, slowest
from raysr.train.network.units import duration, speed

ROUNDS = 5
PROBE_BYTES = 4 << 20
RIVALS = 1.3  # whoever takes at most so many times the fastest's seconds may be the fastest
TURNS = 3
CLOSE = 1.05  # so many times the fastest's seconds are as good, and the more accurate one is taken


class Auto:
    """Stands in a configuration for the exchange that :func:`choose` finds; a training makes that one instead."""

    class Config(Options):
        """``accuracy``: the least that the training puts up with; all of these keep the replicas one."""

        accuracy: AsOne = "rounded"


@dataclass(frozen=True)
class Choice:
    """What was chosen, the same on all ranks, and what that rests on.

    Attributes:
        spec: of the exchange, for :data:`~raysr.train.exchange.base.EXCHANGES`.
        computing: seconds of a backward pass that exchanges nothing, forward pass included.
        bandwidth: bytes a second of each rank's link in an all-reduce; infinite for one rank.
        seconds: of a step by each way that was tried, the slowest rank's; of rivals the median over turns.
        at_least: seconds that each of the others would take for its bytes alone.
    """

    spec: Spec
    computing: float
    bandwidth: float
    seconds: Mapping[str, float]
    at_least: Mapping[str, float]

    def dump(self) -> dict[str, Any]:
        """Return what the choice rests on as plain data, as JSON holds it."""
        bandwidth = None if self.bandwidth == float("inf") else self.bandwidth
        return {
            "computing": self.computing,
            "bandwidth": bandwidth,
            "seconds": dict(self.seconds),
            "at_least": dict(self.at_least),
        }

    def __str__(self) -> str:
        tried = [f"{name} takes {duration(taken)}" for name, taken in self.seconds.items()]
        others = [f"{name} would take {duration(taken)} or more" for name, taken in self.at_least.items()]
        return (
            f"{self.spec.kind}: a step computes for {duration(self.computing)}; over {speed(self.bandwidth)} "
            f"{', '.join([*tried, *others])}"
        )


def choose(context: ExchangeContext, loss: Loss, accuracy: AsOne) -> Choice:
    """Time steps of a loss on copies of the model, on all ranks at once, and return the fastest exchange.

    Args:
        context: what the exchange would be made for; its model stays as it is.
        loss: of a batch of the training.
        accuracy: the least that the training puts up with.
    """
    parameters = [p for p in context.model.parameters() if p.requires_grad]
    shapes, ranks = [p.shape for p in parameters], dist.get_world_size()
    computing = _timed(context, {"kind": "none"}, loss, exchanges=False)
    bandwidth = _bandwidth(context.device, min(PROBE_BYTES, 4 * numbers(shapes)))
    settings = [s for s in SETTINGS if "kind" in s.options and s.suits(accuracy)]
    least = {s.name: s.payload(shapes, ranks).wire / bandwidth for s in settings}
    seconds: dict[str, float] = {}
    for setting in sorted(settings, key=lambda s: least[s.name]):  # who is tried later has a time to beat
        if not seconds or least[setting.name] <= CLOSE * min(seconds.values()):
            seconds[setting.name] = _timed(context, _from_the_first_step(setting), loss)
    close = RIVALS * min(seconds.values())
    rivals = [setting for setting in settings if seconds.get(setting.name, close + 1) <= close]
    times = {setting.name: [seconds[setting.name]] for setting in rivals}
    for turn in range(1, TURNS if len(rivals) > 1 else 1):
        for setting in rivals[:: 1 if turn % 2 else -1]:
            times[setting.name].append(_timed(context, _from_the_first_step(setting), loss))
    seconds |= {name: statistics.median(taken) for name, taken in times.items()}
    good_enough = CLOSE * min(seconds.values())
    chosen = next(s for s in settings if seconds.get(s.name, good_enough + 1) <= good_enough)
    at_least = {name: taken for name, taken in least.items() if name not in seconds}
    return Choice(Spec(**chosen.options), computing, bandwidth, seconds, at_least)


def _from_the_first_step(setting: Setting) -> dict[str, Any]:
    """Return the options of an exchange that does not wait for the warm-up's end."""
    return {**setting.options, **({"start": 0} if setting.accuracy == "compressed" else {})}


def _timed(context: ExchangeContext, options: Mapping[str, Any], loss: Loss, exchanges: bool = True) -> float:
    """Return the median seconds of a step of the slowest rank, with gradients exchanged or not."""
    model = copy.deepcopy(context.model)
    exchange: Exchange = EXCHANGES.build(
        Spec(**options), ExchangeContext(model, context.device, context.seed)
    )

    def step() -> None:
        model.zero_grad(set_to_none=True)
        exchange.backward(loss, last=exchanges)

    return slowest(median_seconds(step, context.device, ROUNDS), context.device)


def _bandwidth(device: torch.device, size: int) -> float:
    """Return the bytes a second of a rank's link in an all-reduce of so many bytes."""
    ranks, tensor = dist.get_world_size(), torch.zeros(max(1, size // 4), device=device)
    taken = slowest(median_seconds(lambda: dist.all_reduce(tensor), device, ROUNDS), device)
    return 2 * (ranks - 1) / ranks * size / taken if ranks > 1 else float("inf")
