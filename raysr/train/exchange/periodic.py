"""Exchanges of weights, for links that a gradient a step is too much for: see :mod:`raysr.train.periodic`."""

from typing import Any, Literal

from pydantic import Field

from raysr.train.exchange.base import ExchangeContext, Loss
from raysr.train.exchange.gradients import WIRES, Plain
from raysr.train.periodic import PeriodicAveraging


class LocalSgd(Plain):
    """Replicas train apart, after ``start`` steps together, and take the mean of their weights every so many steps.

    Each rank steps by its own part of the batch, whose loss is weighed as if all gradients were averaged.
    """

    class Config(Plain.Config):
        """``start``: steps together, as those of warm-up should be; ``every``: steps of a round apart."""

        start: int = Field(200, ge=0)
        every: int = Field(8, ge=1)
        wire: Literal["fp32", "bf16"] = "fp32"

    def __init__(self, config: Config, context: ExchangeContext) -> None:
        super().__init__(config, context)
        self.config, self.steps = config, 0
        self.outer = self._outer(config)
        self.apart = self._parted() if config.start == 0 else None

    @property
    def diverges(self) -> bool:
        return self.apart is not None

    def backward(self, loss: Loss, last: bool = True, scale: float = 1.0) -> None:
        super().backward(loss, last and self.apart is None, scale)

    def stepped(self, last: bool = False) -> None:
        self.steps += 1
        if self.apart is not None:
            with self.waiting.counted():
                self.apart(last)
        elif self.steps >= self.config.start and not last:
            self.apart = self._parted()

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "apart": self.apart.state_dict() if self.apart else None}

    def load_state_dict(self, state: Any) -> None:
        self.steps = int(state["steps"])
        self.apart = self._parted() if state["apart"] else None
        if self.apart is not None:
            self.apart.load_state_dict(state["apart"])

    def adopt(self, state: Any, steps: int) -> None:
        """Begin a round where the replicas are, at the speed that they had in common."""
        self.steps = steps
        self.apart = self._parted() if steps >= self.config.start else None
        if self.apart is not None and state.get("apart"):
            self.apart.keep_moving(state["apart"]["velocity"])

    def _parted(self) -> PeriodicAveraging:
        lr, momentum = self.outer
        return PeriodicAveraging(
            self.context.model, self.config.every, lr, momentum, WIRES[self.config.wire], self.traffic
        )

    def _outer(self, config: Any) -> tuple[float, float]:
        """Return the learning rate and momentum of the outer step."""
        return 1.0, 0.0


class DiLoCo(LocalSgd):
    """What replicas have moved in a round, in the mean, is the gradient of an outer step with Nesterov momentum."""

    class Config(LocalSgd.Config):
        """``outer_lr`` and ``outer_momentum``: those of the paper by default."""

        outer_lr: float = Field(0.7, gt=0)
        outer_momentum: float = Field(0.9, ge=0, lt=1)

    def _outer(self, config: Config) -> tuple[float, float]:
        return config.outer_lr, config.outer_momentum
