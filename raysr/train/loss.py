"""The loss of a batch as a step asks for it: drawn by seeds, in the training's precision, on its device."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from raysr.model.model import Losses
from raysr.train.batch import Batch
from raysr.train.precision import Precision
from raysr.train.seeds import mix


@dataclass
class Objective:
    """Makes losses, and hears what they come to.

    Attributes:
        device: where the model lies.
        precision: of its forward pass.
        seed: of dropout and of contexts that are drawn.
        rank, ranks: of the training.
        heard: the losses of the step's batches so far, and the weight of each batch.
    """

    device: torch.device
    precision: Precision
    seed: int
    rank: int
    ranks: int
    heard: list[tuple[Losses, float]] = field(default_factory=list)

    def of(self, batch: Batch, factor: float, step: int, place: int = 0) -> "BatchLoss":
        """Return the loss of the ``place``-th batch of a step, summed over its utterances, times ``factor``."""
        return BatchLoss(self, batch, factor, step, place)

    def means(self) -> tuple[Tensor, int]:
        """Return (3,) means of what was heard, total, CTC and attention, and the utterances too short; forget it."""
        whole = sum(weight for _, weight in self.heard)
        parts = [torch.stack(losses[:3]).float() * (weight / whole) for losses, weight in self.heard]
        too_short = sum(int(losses.utterances_too_short) for losses, _ in self.heard)
        self.heard.clear()
        return torch.stack(parts).sum(0), too_short


@dataclass(frozen=True)
class BatchLoss:
    """A :data:`~raysr.train.exchange.base.Loss`."""

    objective: Objective
    batch: Batch
    factor: float
    step: int
    place: int

    def __call__(self, module: nn.Module) -> Tensor:
        o, weight = self.objective, float(self.batch.weights.sum())
        torch.manual_seed(mix(o.seed, self.step, o.rank + o.ranks * self.place))  # dropout
        # the same on all ranks, so that none waits for one with a larger chunk
        generator = torch.Generator().manual_seed(mix(o.seed, self.step, 0, 1))
        there = self.batch.to(o.device)
        with o.precision.autocast():
            losses: Losses = module(*there.tensors, generator, there.distillation, there.weights)
        o.heard.append((Losses(*(part.detach() for part in losses)), weight))
        return losses.total * weight * self.factor
