"""The training loop: distributed data parallel when a process group is there, a single process otherwise.

Knows no Ray: :mod:`raysr.train.ray_trainer` runs it on a cluster's workers, :mod:`raysr.train.local` anywhere.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser
from raysr.train import checkpoint
from raysr.train.checkpoint import Progress, Snapshot
from raysr.train.choices import choose_budget, choose_comm
from raysr.train.data import Data, Part, open_data
from raysr.train.development import development_loss
from raysr.train.job import TrainJob
from raysr.train.metrics import StepMetrics, Window
from raysr.train.reading.ahead import read_ahead
from raysr.train.student import Student, rank_and_ranks
from raysr.train.watch import Watch


class Reporter(Protocol):
    """Where a training tells how it goes; every rank calls the same methods in the same order."""

    def metrics(self, metrics: StepMetrics) -> None: ...

    def checkpoint(self, snapshot: Snapshot, dev_loss: float | None) -> None:
        """Keep a checkpoint, perhaps while the training goes on."""
        ...

    def note(self, facts: dict[str, Any]) -> None:
        """Keep what was chosen, and why."""
        ...

    def left_out(self, name: str, reason: str) -> None:
        """Keep the id of an utterance that is not trained on; any rank and any thread may call this at any time."""
        ...

    def finish(self) -> None:
        """Return when all is kept that was told; raise what keeping it raised."""
        ...


class Trained(NamedTuple):
    """A finished training: the model as it is after the last step, and how many steps were not taken."""

    model: AsrModel
    step: int
    skipped_steps: int


class Training:
    """One rank's share of a training: the student and its data, ready to step."""

    def __init__(
        self,
        job: TrainJob,
        model: AsrModel,
        data: Data,
        device: torch.device,
        reporter: Reporter,
        resume: Path | None,
    ) -> None:
        self.job, self.config, self.data, self.reporter = job, job.train, data, reporter
        self.rank, self.ranks = rank_and_ranks()
        found = checkpoint.read(resume, self.rank, self.ranks) if resume is not None else None
        before = found.progress if found else None
        self.budget = choose_budget(job, model.vocab_size, data, device, before, reporter.note)
        self.sampler = data.sampler(self.budget)
        self.fingerprint = data.fingerprint(self.budget)
        if before is not None:
            checkpoint.check_data(before, self.fingerprint)
            self.sampler.load_state_dict(before.sampler)

        def first() -> Part:
            return self._part(0, data.sampler(self.budget).next())

        self.comm = choose_comm(job, model, first, device, before, reporter.note)
        self.student = Student(model, job.train, self.comm, device, job.seed)
        if found is not None:
            self.student.rehearse(first().pieces[0])
            self.student.load(found)

    @property
    def step(self) -> int:
        """How many steps were asked for."""
        return self.student.stepper.steps

    def run(self, watch: Watch) -> None:
        """Take every step that is left, reporting metrics and checkpoints on the way."""
        gradients = 4 * sum(p.numel() for p in self.student.model.parameters() if p.requires_grad)
        window = Window(self.student.exchange.traffic, lambda: self.student.waited, gradients)
        options = self.config.reading
        with closing(read_ahead(self._tasks(), options.batches_ahead, options.threads)) as parts:
            for part, sampler, waited in parts:
                with watch.step(self.step):
                    outcome = self.student.step(
                        part.pieces, part.factor, last=self.step + 1 == self.config.steps
                    )
                window.add(outcome, part.padding, waited)
                if outcome.norm is None:
                    self._keep_bad(part)
                if self._is_due(self.config.log_every):
                    rate = self.student.learning_rate(self.step - 1)
                    self.reporter.metrics(window.close(self.step, rate, self.student.stepper.skipped))
                if self._is_due(self.config.checkpoint_every):
                    self._checkpoint(sampler, watch)
        self.reporter.finish()

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def _tasks(self) -> Iterator[tuple[Callable[[], Part], dict[str, Any]]]:
        """Yield what makes each step's part of a batch, and where the sampler stands after it."""
        for step in range(self.step, self.config.steps):
            indices = self.sampler.next()
            yield partial(self._part, step, indices), self.sampler.state_dict()

    def _part(self, step: int, indices: Any) -> Part:
        return self.data.part(step, indices, self.budget.piece, self.rank, self.ranks)

    def _checkpoint(self, sampler: dict[str, Any], watch: Watch) -> None:
        student = self.student
        with watch.together("the loss on dev"):
            loss = self._development_loss()
        with watch.together("the checkpoint"):
            shared, own = student.state()
        common: dict[str, Any] = {}
        if self.rank == 0:
            common["progress"] = Progress(
                self.step,
                sampler,
                student.stepper.skipped,
                self.ranks,
                self.fingerprint,
                self.budget.batch,
                self.budget.piece,
                self.comm.model_dump(),
            )
            common["model"] = checkpoint.on_cpu(student.model.state_dict())
            common["average"] = checkpoint.on_cpu(student.average.state_dict()) if student.average else {}
            common["shared"] = shared
        self.reporter.checkpoint(Snapshot(self.step, self.rank, self.ranks, own, **common), loss)

    def _development_loss(self) -> float | None:
        if self.data.dev is None:
            return None
        most = self.budget.piece or -(-self.budget.batch // self.ranks)
        return development_loss(self.student, self.data.dev, self.data.dev_frames, most)

    def _keep_bad(self, part: Part) -> None:
        """Write down a batch whose gradients were not finite, while fewer than are wanted have been."""
        folder = Path(self.job.out) / "bad-batches"
        if len(list(folder.glob(f"*-rank-{self.rank}.pt"))) < self.config.keep_bad_batches:
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(part.dump(), folder / f"step-{self.step - 1}-rank-{self.rank}.pt")


def train(job: TrainJob, reporter: Reporter, resume: Path | None = None) -> Trained:
    """Carry out a training on this rank.

    Joins the default process group when there is one; CUDA device = the current one.

    Args:
        job: what to train.
        reporter: told of metrics, checkpoints, choices, and utterances that are left out.
        resume: folder of a checkpoint to go on from.

    Raises:
        CorpusError: an utterance has no text or no cached features, or there is nothing to train on.
        RunError: the first weights or the checkpoint cannot be used; too many steps in a row cannot be taken; or a
            rank is missing or has failed: names it.
    """
    device = (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )
    with ExitStack() as stack:
        stack.enter_context(_one_thread_on_cpu(device))
        watch = stack.enter_context(Watch(job.timeout_s))
        tokeniser = Tokeniser.load(job.tokeniser)
        model = AsrModel(job.model, tokeniser.vocab_size)
        checkpoint.load_weights(model, checkpoint.read_weights(job.init), job.init)
        is_new = resume is None and rank_and_ranks()[0] == 0
        leave_out = reporter.left_out if is_new else _once_is_enough
        data = stack.enter_context(
            open_data(
                job, model, tokeniser, leave_out, reporter.left_out, lambda why: reporter.note({"cache": why})
            )
        )
        with watch.together("the set-up", patient=True):
            training = Training(job, model, data, device, reporter, resume)
        training.run(watch)
        # nothing that synchronises gradients goes with it: its threads may not outlive the process group
        return Trained(model, training.step, training.student.stepper.skipped)


def _once_is_enough(name: str, reason: str) -> None:
    """Do not tell again what another rank tells, or what was told before the training was interrupted."""


@contextmanager
def _one_thread_on_cpu(device: torch.device) -> Iterator[None]:
    """A rank is a core: more threads a process fight with the other ranks."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
