"""How gradients should cross a link of measured speed: the most accurate way that hardly keeps training waiting.

What is predicted is communication, from payloads and the link. What compressing takes depends on the device, and only
steps can tell. So much is known beforehand: to pack a number into 8 bits or 1, a core takes some 50 ns, in which a
link of 0.5 Gbit/s carries what that spares.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args

from raysr.train.network.links import Links
from raysr.train.network.payload import Payload, Shapes, in_blocks, low_rank, now_and_then, numbers, whole
from raysr.train.network.units import duration, size, speed

AsOne = Literal["exact", "rounded", "compressed"]
"""What a training puts up with whose replicas stay one, each including those before: nothing; gradients rounded to 16
bits; gradients of which a part comes later (error feedback)."""
Accuracy = Literal[AsOne, "apart"]
"""These, and last of all replicas that differ between meetings."""

TOLERATED = 0.25  # of the backward pass, spent waiting for the network
ASSUMED_BACKWARD_S = 0.2


@dataclass(frozen=True)
class Setting:
    """A way to send gradients.

    Attributes:
        name: as people say it.
        options: of ``comm`` in a training's configuration, or the ``optimiser`` whose own business it is.
        accuracy: what a training has to put up with.
        payload: by shapes and ranks.
        overlaps: whether gradients are sent while others are still computed.
        packs: whether it makes bytes of every number in several passes.
    """

    name: str
    options: dict[str, str | int]
    accuracy: Accuracy
    payload: Callable[[Shapes, int], Payload] = field(compare=False)
    overlaps: bool = False
    packs: bool = False

    def suits(self, accuracy: Accuracy) -> bool:
        """Say whether a training may use it that puts up with so much."""
        classes = get_args(Accuracy)
        return classes.index(self.accuracy) <= classes.index(accuracy)


def _powersgd(rank: int) -> Setting:
    options: dict[str, str | int] = {"kind": "powersgd", "rank": rank}
    return Setting(f"PowerSGD of rank {rank}", options, "compressed", partial(low_rank, rank=rank))


def _local_sgd(every: int) -> Setting:
    sent = partial(now_and_then, every=every)
    options: dict[str, str | int] = {"kind": "local_sgd", "every": every}
    return Setting(f"local SGD of {every} steps", options, "apart", sent)


# the most accurate first
SETTINGS = (
    Setting("none", {"kind": "none"}, "exact", whole, overlaps=True),
    Setting("bf16", {"kind": "bf16"}, "rounded", partial(whole, width=2), overlaps=True),
    Setting("8 bits", {"kind": "8bit"}, "compressed", partial(in_blocks, codec="8bit"), packs=True),
    Setting(
        "1-bit Adam", {"optimiser": "onebit_adam"}, "compressed", partial(in_blocks, codec="1bit"), packs=True
    ),
    *map(_powersgd, (4, 2, 1)),
    *map(_local_sgd, (8, 32)),
)


@dataclass(frozen=True)
class Prediction:
    """What a setting makes of a step.

    Attributes:
        payload: of a rank.
        seconds: of communication.
        waiting: of these, seconds that the step takes longer for.
    """

    setting: Setting
    payload: Payload
    seconds: float
    waiting: float


@dataclass(frozen=True)
class Recommendation:
    """A setting, why it is called for, and what all would make of a step."""

    setting: Setting
    why: str
    predictions: tuple[Prediction, ...]

    def dump(self) -> dict[str, Any]:
        """Return plain data, as JSON holds it."""
        return {
            "setting": self.setting.name,
            "options": self.setting.options,
            "why": self.why,
            "predictions": [
                {"setting": p.setting.name, "payload": p.payload.payload, "wire": p.payload.wire}
                | {"seconds": p.seconds, "waiting": p.waiting}
                for p in self.predictions
            ],
        }

    def __str__(self) -> str:
        return f"recommended: {self.setting.name}; {self.why}"


def recommend(
    links: Links,
    ranks: int,
    shapes: Shapes,
    backward: float | None = None,
    accuracy: Accuracy = "compressed",
    on_cpu: bool = False,
) -> Recommendation:
    """Recommend the most accurate setting for which training waits little, or else the one it waits least for.

    Little is a quarter of the backward pass.

    Args:
        links: as measured between these ranks.
        ranks: that take part.
        shapes: of the model's trained parameters.
        backward: seconds of a step's backward pass; None takes 0.2 s for granted.
        accuracy: what training puts up with.
        on_cpu: whether gradients are a CPU's, which leaves out what packs bits.
    """
    pass_ = ASSUMED_BACKWARD_S if backward is None else backward
    predictions = tuple(_predict(setting, links, ranks, shapes, pass_) for setting in SETTINGS)
    allowed = [p for p in predictions if p.setting.suits(accuracy) and not (on_cpu and p.setting.packs)]
    quick = [p for p in allowed if p.waiting <= TOLERATED * pass_]
    chosen = quick[0] if quick else min(allowed, key=lambda p: p.waiting)
    plain = f"{size(4 * numbers(shapes))} of gradients take {duration(predictions[0].seconds)} a step"
    instead = "" if chosen is predictions[0] else f", so they take {duration(chosen.seconds)}"
    assumed = " (taken for granted)" if backward is None else ""
    why = f"{plain} at {speed(links.bandwidth)}{instead}; the backward pass takes {duration(pass_)}{assumed}"
    return Recommendation(chosen.setting, why, predictions)


def _predict(setting: Setting, links: Links, ranks: int, shapes: Shapes, backward: float) -> Prediction:
    payload = setting.payload(shapes, ranks)
    seconds = payload.wire / links.bandwidth + payload.collectives * links.latency
    return Prediction(
        setting, payload, seconds, max(0.0, seconds - backward) if setting.overlaps else seconds
    )
