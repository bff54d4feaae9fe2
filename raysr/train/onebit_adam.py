"""1-bit Adam: once its variances have settled, Adam that sends the sign of its momentum.

Tang et al. 2021 (arXiv 2102.02888), Algorithm 1: in the first steps Adam on averaged gradients; then the variances
stay as they are, every rank moves the common momentum by its own gradient, and the mean of these momenta, compressed
with error feedback at both ends, is the next common one. Weight decay is decoupled, as in AdamW.

Other than there, a step of compressed momentum is no larger than Adam's own can be (Kingma and Ba 2015, arXiv
1412.6980, section 2.1): a weight that had next to no gradients before the variances froze, such as the embedding of a
token that was not seen yet, has a variance next to nothing, and yet a momentum of its block's size.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from raysr.train.exchange.waiting import Stopwatch


class Mean(Protocol):
    """Of vectors that come again and again, over all ranks: a :class:`~raysr.train.hooks.blocks.CompressedMean`."""

    def __call__(self, vectors: Sequence[Tensor]) -> list[Tensor] | None:
        """Return the mean of each vector, the same on all ranks; None where one is not finite."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what this rank needs to go on exactly: tensors, or None."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where this rank's :meth:`state_dict` was taken."""
        ...


class MeanOfOne:
    """The mean where there are no others: nothing is sent, so that nothing is compressed."""

    def __call__(self, vectors: Sequence[Tensor]) -> list[Tensor] | None:
        finite = torch.stack([vector.isfinite().all() for vector in vectors]).all()
        return list(vectors) if bool(finite) else None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class OneBitAdam(Optimizer):
    """Steps alike on all ranks, from averaged gradients at first, and from each rank's own ones afterwards.

    Args:
        parameters: or groups of them, float32; the same on all ranks.
        mean: of the momenta; compresses, and keeps what was lost for the next one.
        freeze_step: steps before variances are frozen and compression begins.
        lr, betas, eps, weight_decay: of AdamW.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        mean: Mean,
        freeze_step: int,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if freeze_step < 1:
            raise ValueError(
                f"freeze_step is {freeze_step}: without a step of Adam there are no variances to freeze"
            )
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.mean, self.freeze_step, self.steps = mean, freeze_step, 0
        self.waiting = Stopwatch(self.param_groups[0]["params"][0].device)

    @property
    def compresses(self) -> bool:
        """Whether the next step takes gradients that are not averaged."""
        return self.steps >= self.freeze_step

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Take a step; once it compresses, one for which a rank's gradients are not finite is no step on any."""
        if closure is not None:
            raise ValueError(
                "1-bit Adam computes no gradients of its own: call backward, then step without a closure"
            )
        groups = [(group, [p for p in group["params"] if p.grad is not None]) for group in self.param_groups]
        parameters = [p for _, members in groups for p in members]
        moved = {p: self._moved(group, p) for group, members in groups for p in members}
        if self.compresses:
            with self.waiting.counted():
                means = self.mean([moved[p] for p in parameters])
            if means is None:
                return
            moved = dict(zip(parameters, means, strict=True))
        self.steps += 1
        for group, members in groups:
            for p in members:
                self._update(group, p, moved[p])

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "steps": self.steps, "mean": self.mean.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; its ``mean`` may be left out, as that of another number of ranks."""
        own = {key: value for key, value in state_dict.items() if key not in ("steps", "mean")}
        super().load_state_dict(own)
        self.steps = int(state_dict["steps"])
        if "mean" in state_dict:
            self.load_mean(state_dict["mean"])

    def load_mean(self, state: Mapping[str, Tensor | None]) -> None:
        """Go on with the errors of this rank's ``mean``, wherever they lie."""
        device = next(p.device for group in self.param_groups for p in group["params"])
        self.mean.load_state_dict({name: e if e is None else e.to(device) for name, e in state.items()})

    def _moved(self, group: Mapping[str, Any], p: Tensor) -> Tensor:
        """Return the momentum after this rank's gradient."""
        state = self.state[p]
        if not state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        momentum: Tensor = state["exp_avg"].lerp(p.grad, 1 - group["betas"][0])
        return momentum

    def _update(self, group: Mapping[str, Any], p: Tensor, momentum: Tensor) -> None:
        state, (beta1, beta2) = self.state[p], group["betas"]
        state["exp_avg"].copy_(momentum)
        averaged = min(self.steps, self.freeze_step)
        if self.steps == averaged:
            assert p.grad is not None
            state["exp_avg_sq"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
        deviation = (state["exp_avg_sq"] / (1 - beta2**averaged)).sqrt_().add_(group["eps"])
        p.mul_(1 - group["lr"] * group["weight_decay"])
        step = torch.div(momentum, deviation, out=deviation).div_(1 - beta1**self.steps)
        if self.steps > averaged:
            largest = max(1.0, (1 - beta1) / math.sqrt(1 - beta2))
            step.clamp_(-largest, largest)
        p.add_(step, alpha=-group["lr"])
