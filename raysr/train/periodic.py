"""Replicas that train apart and meet every so many steps, for links that a gradient a step is too much for.

Plain averaging of the weights is local SGD (Stich 2019, arXiv 1805.09767). With an outer learning rate and momentum it
is DiLoCo (Douillard et al. 2023, arXiv 2311.08105): what all have moved, in the mean, is the gradient of an outer step
of Nesterov's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raysr.train.hooks.traffic import Traffic


@dataclass
class PeriodicAveraging:
    """Makes the replicas of a model one again every ``every`` steps; all ranks call it after every step.

    Attributes:
        model: of which every rank has a replica, the same on all to begin with.
        every: steps of a round.
        lr, momentum: of the outer step; 1 and 0 take the mean of the weights, which is local SGD.
        wire: the type in which movements are sent.
        traffic: counts what is sent.
    """

    model: nn.Module
    every: int
    lr: float = 1.0
    momentum: float = 0.0
    wire: torch.dtype = torch.float32
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        self._met = {name: p.detach().clone() for name, p in self._parameters().items()}
        self._velocity = {name: torch.zeros_like(p) for name, p in self._met.items()} if self.momentum else {}
        self._steps = 0

    @torch.no_grad()
    def __call__(self, last: bool = False) -> bool:
        """Count a step, and return whether it ended a round: then all replicas are the same, bit for bit.

        The ``last`` step of all ends a round, however short.
        """
        self._steps += 1
        if self._steps < self.every and not last:
            return False
        self._steps = 0
        parameters = self._parameters()
        moved = torch.cat([(self._met[name] - p).flatten() for name, p in parameters.items()])
        sent = moved.div_(dist.get_world_size()).to(self.wire)
        self.traffic.all_reduce(sent)
        dist.all_reduce(sent)
        means = sent.float().split([p.numel() for p in parameters.values()])
        for (name, p), mean in zip(parameters.items(), means, strict=True):
            self._met[name].sub_(self._outer(name, mean.view_as(p)), alpha=self.lr)
            p.copy_(self._met[name])
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return where the replicas last met, and how fast they move."""
        return {"met": self._met, "velocity": self._velocity, "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self._met, self._velocity = dict(state["met"]), dict(state["velocity"])
        self._steps = int(state["steps"])

    def keep_moving(self, velocity: Mapping[str, Tensor]) -> None:
        """Take over how fast replicas moved, and nothing else of a :meth:`state_dict`."""
        if self.momentum and velocity:
            self._velocity = dict(velocity)

    def _outer(self, name: str, gradient: Tensor) -> Tensor:
        """Return the direction of the outer step."""
        if not self.momentum:
            return gradient
        velocity = self._velocity[name].mul_(self.momentum).add_(gradient)
        return gradient + self.momentum * velocity

    def _parameters(self) -> dict[str, Tensor]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}
