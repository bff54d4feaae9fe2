"""One optimiser step after another: gradients, their exchange, clipping, and steps that nobody takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from raysr.errors import RunError
from raysr.train.exchange.base import Exchange, Loss
from raysr.train.onebit_adam import OneBitAdam

MOST_SKIPPED = 50  # steps in a row; loss scaling needs 16 to come down from 2^16 to 1


@dataclass
class Stepper:
    """Moves the weights of a replica, together with those of all ranks.

    The learning rate follows the steps that were asked for, so that it is the same on all ranks also where replicas
    train apart and one of them skips.

    Attributes:
        model: this rank's replica.
        exchange: of the model; computes its gradients.
        optimiser: of its parameters.
        learning_rate: of each step, counted from zero.
        scaler: of losses, where the type of gradients needs it.
        clip: the largest norm of a step's gradients; that of this rank's own where they are not averaged.
        steps: that were asked for.
        skipped: those of them that were not taken because gradients were not finite; scaled losses have some by design.
    """

    model: nn.Module
    exchange: Exchange
    optimiser: Optimizer
    learning_rate: Callable[[int], float]
    scaler: torch.amp.GradScaler
    clip: float
    steps: int = 0
    skipped: int = 0
    _in_a_row: int = 0

    def __call__(self, losses: Sequence[Loss], last: bool = False) -> Tensor | None:
        """Take a step by the sum of losses, each computed when its turn comes, and return the norm of its gradients.

        Returns None where there was no step: on all ranks alike, unless replicas train apart.

        Raises:
            RunError: too many steps in a row could not be taken.
        """
        own = isinstance(self.optimiser, OneBitAdam) and self.optimiser.compresses
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(self.steps)
        self.optimiser.zero_grad(set_to_none=True)
        scale = self.scaler.get_scale()
        for place, loss in enumerate(losses):
            is_last = place == len(losses) - 1
            self.exchange.backward(self._scaled(loss), is_last and not own, scale)
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip, foreach=True)
        taken = self._agreed_step() if own else self._step(norm)
        self.scaler.update()
        self.exchange.stepped(last)
        self._count(taken)
        return norm if taken else None

    def _scaled(self, loss: Loss) -> Loss:
        def scaled(module: nn.Module) -> Tensor:
            return self.scaler.scale(loss(module))

        return scaled

    def _step(self, norm: Tensor) -> bool:
        if not bool(norm.isfinite()):
            return False
        self.scaler.step(self.optimiser)
        return True

    def _agreed_step(self) -> bool:
        """Step by gradients of this rank's own; the optimiser finds out whether all ranks' are finite."""
        assert isinstance(self.optimiser, OneBitAdam)
        before = self.optimiser.steps
        self.optimiser.step()
        return self.optimiser.steps > before

    def _count(self, taken: bool) -> None:
        self.steps += 1
        self.skipped += not taken
        self._in_a_row = 0 if taken else self._in_a_row + 1
        if self._in_a_row == MOST_SKIPPED:
            raise RunError(
                f"the gradients of {MOST_SKIPPED} steps in a row are not finite: the training has diverged, or its "
                "data are broken; a lower optimiser.lr, a longer schedule.warmup_steps or precision: fp32 may help"
            )
