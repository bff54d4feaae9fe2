"""A training of one rank, which has nothing to exchange and waits for nobody."""

from typing import Any

from torch import nn

from raysr.train.exchange.base import Loss
from raysr.train.hooks.traffic import Traffic


class Alone:
    """An :class:`~raysr.train.exchange.base.Exchange` that needs no process group.

    Args:
        model: the only replica.
    """

    diverges = False
    waited = 0.0

    def __init__(self, model: nn.Module) -> None:
        self.model, self.traffic = model, Traffic()

    def backward(self, loss: Loss, last: bool = True, scale: float = 1.0) -> None:
        loss(self.model).backward()

    def stepped(self, last: bool = False) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass

    def adopt(self, state: Any, steps: int) -> None:
        pass
