"""A replica that learns: the model, what makes it one with those of the other ranks, and its optimiser."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raysr.config import Spec
from raysr.model.model import AsrModel
from raysr.train import precision
from raysr.train.averaging import MovingAverage
from raysr.train.batch import Batch
from raysr.train.checkpoint import Checkpoint, load_weights, on_cpu, on_device
from raysr.train.exchange.alone import Alone
from raysr.train.exchange.base import EXCHANGES, Exchange, ExchangeContext
from raysr.train.job import TrainConfig
from raysr.train.loss import Objective
from raysr.train.metrics import Outcome
from raysr.train.onebit_adam import OneBitAdam
from raysr.train.optim import (
    build_optimiser,
    learning_rate_share,
    load_own_state,
    load_shared_state,
    own_state,
    shared_state,
)
from raysr.train.step import Stepper


class Student:
    """What a rank trains.

    Args:
        model: the same on all ranks; goes to the device.
        config: of the training.
        comm: which exchange, and its options.
        device: where it learns.
        seed: of dropout and of contexts that are drawn.
        exchanges: also where there is one rank, which has nobody to exchange with.
    """

    def __init__(
        self,
        model: AsrModel,
        config: TrainConfig,
        comm: Spec,
        device: torch.device,
        seed: int,
        exchanges: bool = False,
    ) -> None:
        self.rank, self.ranks = rank_and_ranks()
        self.model = model.to(device).train()
        self.config, self.device = config, device
        context = ExchangeContext(self.model, device, seed)
        several = exchanges or self.ranks > 1
        self.exchange: Exchange = EXCHANGES.build(comm, context) if several else Alone(self.model)
        self.precision = precision.choose(config.precision, device, config.emulate_precision)
        self.objective = Objective(device, self.precision, seed, self.rank, self.ranks)
        self.optimiser = build_optimiser(self.model, config.optimiser, self.exchange.traffic, several)
        self.average = MovingAverage(self.model, config.ema_decay) if config.ema_decay else None
        self.stepper = Stepper(
            self.model,
            self.exchange,
            self.optimiser,
            self.learning_rate,
            self.precision.scaler,
            config.optimiser.clip,
        )

    def learning_rate(self, step: int) -> float:
        """Return that of a step, counted from zero."""
        return self.config.optimiser.lr * learning_rate_share(step, self.config.schedule, self.config.steps)

    @property
    def waited(self) -> float:
        """Seconds that this rank has waited for others, computing nothing but what is sent."""
        own = self.optimiser.waiting.seconds if isinstance(self.optimiser, OneBitAdam) else 0.0
        return self.exchange.waited + own

    @property
    def published(self) -> nn.Module:
        """The model that the training is for: the moving average where there is one."""
        return self.model if self.average is None else self.average.model

    def step(self, pieces: Sequence[Batch], factor: float, last: bool = False) -> Outcome:
        """Take a step by this rank's part of a batch.

        Args:
            pieces: of the part; each goes through the model by itself.
            factor: of their summed losses.
            last: whether the training ends with it.
        """
        step = self.stepper.steps
        norm = self.stepper([self.objective.of(b, factor, step, p) for p, b in enumerate(pieces)], last)
        if norm is not None and self.average is not None:
            self.average.update(self.model)
        return Outcome(*self.objective.means(), norm)

    def rehearse(self, piece: Batch) -> None:
        """Compute and exchange gradients of a batch, and forget them.

        DDP puts its buckets in order after a first pass; with three ranks or more the rounding of a sum depends on
        that order, so that a training that goes on has to have it, too, before its first step.
        """
        if self.ranks > 1:
            self.exchange.backward(self.objective.of(piece, 1.0, 0))
            self.model.zero_grad(set_to_none=True)
            self.objective.means()

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return copies of what all ranks have in common, on rank 0, and of what is this rank's own.

        All ranks call this together.
        """
        shared: dict[str, Any] = {"optimiser": shared_state(self.optimiser)}
        if self.average is not None:
            shared["updates"] = self.average.updates
        own = {
            "exchange": on_cpu(self.exchange.state_dict()),
            "optimiser": own_state(self.optimiser),
            "scaler": on_cpu(self.precision.scaler.state_dict()),
        }
        if self.exchange.diverges:
            own["model"], own["replica"] = (
                on_cpu(self.model.state_dict()),
                on_cpu(self.optimiser.state_dict()),
            )
            if self.average is not None:
                own["average"] = on_cpu(self.average.state_dict())
        return shared, own

    def load(self, found: Checkpoint) -> None:
        """Go on where a checkpoint was written, exactly where it was by as many ranks.

        By another number of them, replicas that were apart meet in their mean, and what was the others' own, such as
        errors of compression, is gone.

        Raises:
            RunError: the checkpoint is another model's.
        """
        own = found.own
        apart = [part["model"] for part in found.others if "model" in part]
        weights = own.get("model") or (_mean(apart) if apart else found.model)
        load_weights(self.model, weights, f"the checkpoint after step {found.progress.step}")
        load_shared_state(self.optimiser, own.get("replica") or found.shared["optimiser"])
        if scaler := (own or found.others[0])["scaler"]:  # none where nothing was scaled
            self.precision.scaler.load_state_dict(scaler)
        progress = found.progress
        if found.others:
            taken = progress.step - progress.skipped_steps
            self.exchange.adopt(on_device(found.others[0]["exchange"], self.device), taken)
        else:
            self.exchange.load_state_dict(on_device(own["exchange"], self.device))
            load_own_state(self.optimiser, own["optimiser"])
        if self.average is not None:
            average = own.get("average") or found.average or self.model.state_dict()
            self.average.load(average, found.shared.get("updates", 0))
        self.stepper.steps, self.stepper.skipped = progress.step, progress.skipped_steps


def rank_and_ranks() -> tuple[int, int]:
    """Return this process's rank and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _mean(replicas: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {
        name: torch.stack([replica[name].double() for replica in replicas]).mean(0).to(weight.dtype)
        for name, weight in replicas[0].items()
    }
