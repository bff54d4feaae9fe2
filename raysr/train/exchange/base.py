"""How the replicas of a model stay one: what an exchange is asked, and what each is made from.

A step of training is one backward pass or several over parts of a batch, then an optimiser's step. An exchange runs
the backward passes, so that gradients meet when they should, and is told of the step, for those whose replicas meet
then.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from raysr.config import Slot
from raysr.train.hooks.traffic import Traffic

Loss = Callable[[nn.Module], Tensor]
"""Computes a loss, a scalar, by calling the module that it is given as it would the model."""


@dataclass(frozen=True)
class ExchangeContext:
    """What an exchange is made for.

    Attributes:
        model: this rank's replica, the same on all ranks; an exchange of several ranks wraps it.
        device: where it lies.
        seed: of what is drawn, the same on all ranks.
    """

    model: nn.Module
    device: torch.device
    seed: int = 0


class Exchange(Protocol):
    """Makes one training of what all ranks do; all call the same methods in the same order.

    Attributes:
        traffic: what has been sent.
        waited: seconds that this rank has waited for others' gradients, computing nothing.
        diverges: whether replicas may differ between steps, so that each needs its own place in a checkpoint.
    """

    traffic: Traffic

    @property
    def diverges(self) -> bool: ...

    @property
    def waited(self) -> float: ...

    def backward(self, loss: Loss, last: bool = True, scale: float = 1.0) -> None:
        """Add the gradients of a loss to those of the parameters.

        Args:
            loss: of this rank's part of the batch; computed here.
            last: whether the step's gradients are complete with it: the others' join then, or never.
            scale: that the loss is multiplied by, as it is in the loss already.
        """
        ...

    def stepped(self, last: bool = False) -> None:
        """Hear that the optimiser has stepped; after the ``last`` step of a training replicas are one."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what this rank needs to go on exactly."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where this rank's :meth:`state_dict` was taken, in a group of as many ranks."""
        ...

    def adopt(self, state: Mapping[str, Any], steps: int) -> None:
        """Go on after so many steps in a group of another size, from rank 0's :meth:`state_dict` there.

        What was common to all ranks stays; what was a rank's own, such as errors of compression, is dropped. The state
        may be of an exchange of another kind, and is the same on all ranks.
        """
        ...


EXCHANGES = Slot(
    "comm",
    {
        "auto": "raysr.train.exchange.auto:Auto",
        "none": "raysr.train.exchange.gradients:Plain",
        "fp16": "raysr.train.exchange.gradients:Float16",
        "bf16": "raysr.train.exchange.gradients:BFloat16",
        "powersgd": "raysr.train.exchange.gradients:LowRank",
        "8bit": "raysr.train.exchange.gradients:EightBits",
        "1bit": "raysr.train.exchange.gradients:OneBitEach",
        "local_sgd": "raysr.train.exchange.periodic:LocalSgd",
        "diloco": "raysr.train.exchange.periodic:DiLoCo",
    },
)
"""What ``comm.kind`` may be; a user's own is named ``package.module:Class``."""
