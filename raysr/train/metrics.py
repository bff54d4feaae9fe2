"""How a training goes, in numbers: means over the steps since the last report."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from raysr.train.hooks.traffic import Traffic


@dataclass(frozen=True)
class StepMetrics:
    """Means over the steps since the last report, of this rank.

    Attributes:
        step: how many were asked for since the training began.
        loss, ctc, attention: of this rank's part of the batches; NaN where no step was taken.
        gradient_norm: before clipping, of the mean gradient over all ranks.
        learning_rate: of the last step.
        seconds_per_step: all told.
        data_wait: share of the time spent waiting for a batch.
        comm_wait: share of the time spent waiting for other ranks' gradients with nothing left to compute.
        payload_bytes: handed to collectives by this rank, a step.
        wire_bytes: sent by this rank for them, a step, headers aside.
        compression: how many times fewer bytes that payload is than the gradients in float32; 0 without a payload.
        padding: share of this rank's batches that is padding.
        skipped_steps: not taken since the training began, because gradients were not finite.
        too_short: utterances, since the last report, that had fewer frames than their text needs, or none at all.
    """

    step: int
    loss: float
    ctc: float
    attention: float
    gradient_norm: float
    learning_rate: float
    seconds_per_step: float
    data_wait: float
    comm_wait: float
    payload_bytes: float
    wire_bytes: float
    compression: float
    padding: float
    skipped_steps: int
    too_short: int


@dataclass(frozen=True)
class Outcome:
    """What a step made of this rank's part of a batch.

    Attributes:
        losses: (3,) the total, CTC's and attention's, weighted means.
        too_short: how many of its utterances had too few frames for their text.
        norm: of the gradients; None where the step was not taken.
    """

    losses: Tensor
    too_short: int
    norm: Tensor | None


class Window:
    """Sums since the last report.

    Args:
        traffic: of the training.
        waited: tells the seconds that were waited for other ranks.
        gradients: bytes of all gradients in float32.
    """

    def __init__(self, traffic: Traffic, waited: Callable[[], float], gradients: int) -> None:
        self._traffic, self._waited_for, self._gradients = traffic, waited, gradients
        self._begin()

    def add(self, outcome: Outcome, padding: float, waited: float) -> None:
        """Count a step, the padding of its batch and the seconds waited for that."""
        self._steps += 1
        self._too_short += outcome.too_short
        self._padding += padding
        self._waited += waited
        if outcome.norm is not None:
            self._taken.append(torch.cat((outcome.losses, outcome.norm.detach().float().view(1))))

    def close(self, step: int, learning_rate: float, skipped: int) -> StepMetrics:
        """Return the means, and begin anew."""
        means = torch.stack(self._taken).mean(0).tolist() if self._taken else [float("nan")] * 4
        loss, ctc, attention, norm = means
        seconds = max(time.perf_counter() - self._started, 1e-9)
        payload = (self._traffic.payload - self._payload) / self._steps
        metrics = StepMetrics(
            step=step,
            loss=loss,
            ctc=ctc,
            attention=attention,
            gradient_norm=norm,
            learning_rate=learning_rate,
            seconds_per_step=seconds / self._steps,
            data_wait=self._waited / seconds,
            comm_wait=(self._waited_for() - self._comm) / seconds,
            payload_bytes=payload,
            wire_bytes=(self._traffic.wire - self._wire) / self._steps,
            compression=self._gradients / payload if payload else 0.0,
            padding=self._padding / self._steps,
            skipped_steps=skipped,
            too_short=self._too_short,
        )
        self._begin()
        return metrics

    def _begin(self) -> None:
        self._taken: list[Tensor] = []
        self._steps = self._too_short = 0
        self._padding = self._waited = 0.0
        self._payload, self._wire = self._traffic.payload, self._traffic.wire
        self._comm = self._waited_for()
        self._started = time.perf_counter()
