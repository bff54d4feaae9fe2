"""What a training finds out before its first step where it is left to it: the largest batch, the quickest exchange."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from raysr.config import Spec
from raysr.model.model import AsrModel
from raysr.train import precision
from raysr.train.batch import random_batch
from raysr.train.checkpoint import Progress
from raysr.train.data import Budget, Data, Part
from raysr.train.exchange.auto import choose
from raysr.train.exchange.base import EXCHANGES, ExchangeContext
from raysr.train.job import TrainJob
from raysr.train.loss import Objective
from raysr.train.memory.find import find_largest_batch
from raysr.train.memory.shapes import Shape
from raysr.train.memory.trial import Step
from raysr.train.student import Student, rank_and_ranks

Note = Callable[[dict[str, Any]], object]
CONTEXTS = 4
"""Contexts that are drawn for each batch tried: the dearest of them counts."""


def choose_budget(
    job: TrainJob, vocab_size: int, data: Data, device: torch.device, before: Progress | None, note: Note
) -> Budget:
    """Return how much audio goes together; all ranks call this before they have students of their own.

    What was found stays for the rest of a training, also on fewer workers: then a rank's larger part goes through its
    model in pieces of what a rank could hold.

    Args:
        job: whose ``train.batch_seconds`` may be ``auto``.
        vocab_size: of the student.
        data: what may be dealt.
        device: of this rank.
        before: of a training that goes on.
        note: told what was found.

    Raises:
        RunError: an utterance alone does not fit into memory; names it.
    """
    train = job.train
    if train.batch_seconds != "auto":
        piece = None if train.micro_batch_seconds is None else data.frames(train.micro_batch_seconds)
        return Budget(data.frames(train.batch_seconds), piece)
    if before is not None:
        return Budget(before.batch_frames, before.piece_frames)
    found = find_largest_batch(TrialStudent(job, vocab_size), data.lengths, data.names, device)
    seconds = found.seconds(job.features.frame_shift_ms)
    note(
        {
            "batch_seconds": seconds,
            "largest": found.worst._asdict(),
            "bytes": found.peak,
            "limit": found.limit,
        }
    )
    return Budget(found.batch_frames, max(1, found.batch_frames // rank_and_ranks()[1]))


def choose_comm(
    job: TrainJob,
    model: AsrModel,
    first: Callable[[], Part],
    device: torch.device,
    before: Progress | None,
    note: Note,
) -> Spec:
    """Return the exchange of a training; where it is ``auto``, the quickest in timed steps.

    What was chosen stays while there are as many ranks; for others it is chosen anew. What compresses with error
    feedback begins when the learning rate has warmed up.

    Args:
        job: whose ``train.comm`` may be ``auto``.
        model: this rank's replica, in its first state.
        first: makes this rank's part of a first batch.
        device: of this rank.
        before: of a training that goes on.
        note: told what was chosen, and why.
    """
    comm, (rank, ranks) = job.train.comm, rank_and_ranks()
    if comm.kind != "auto":
        return comm
    if ranks == 1:
        return Spec(kind="none")
    if before is not None and before.ranks == ranks:
        return Spec(**before.comm)
    accuracy = EXCHANGES.check(comm).options["accuracy"]
    chosen = precision.choose(job.train.precision, device, job.train.emulate_precision)
    objective = Objective(device, chosen, job.seed, rank, ranks)
    part = first()
    loss = objective.of(part.pieces[0], part.factor, 0)
    choice = choose(ExchangeContext(model.to(device).train(), device, job.seed), loss, accuracy)
    spec = begun(choice.spec, job.train.schedule.warmup_steps)
    note({"comm": spec.model_dump(), "accuracy": accuracy, "why": str(choice), **choice.dump()})
    return spec


@dataclass(frozen=True)
class TrialStudent:
    """Makes a student of a job in a process of its own, to see what its steps take."""

    job: TrainJob
    vocab_size: int

    def __call__(self, device: torch.device) -> Step:
        model = AsrModel(self.job.model, self.vocab_size)
        comm = _dearest(self.job.train.comm)
        train, teacher = self.job.train, self.job.distillation
        optimiser = train.optimiser.model_copy(
            update={"freeze_step": 1}
        )  # what it keeps from then on is there at once
        train = train.model_copy(update={"optimiser": optimiser})
        student = Student(model, train, comm, device, self.job.seed, exchanges=True)

        def step(shape: Shape) -> None:
            batch = random_batch(*shape, self.job.model.mel_bins, self.vocab_size, teacher)
            for _ in range(CONTEXTS):
                student.step([batch], 1.0)

        return step


def _dearest(comm: Spec) -> Spec:
    """Return the exchange with all that it keeps from its first step on; for ``auto`` the one that keeps the most."""
    return begun(EXCHANGES.check(Spec(kind="8bit") if comm.kind == "auto" else comm), 0)


def begun(comm: Spec, steps: int) -> Spec:
    """Return an exchange that begins after so many steps, if it is one that begins at all."""
    return comm.model_copy(update={"start": steps}) if "start" in EXCHANGES.check(comm).options else comm
