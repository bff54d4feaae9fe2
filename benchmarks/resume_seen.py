"""What each step of a training was made from, as the model saw it; and whether it is what had to come.

:class:`Seen` is an encoder of one's own, ``model.encoder.kind: benchmarks.resume_seen:Seen``. Utterances are known by
their features, so the training has to leave these as they are, but for rounding: no augmentation.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from raysr.corpus.disk import append_row
from raysr.errors import RunError
from raysr.model.config import EncoderConfig
from raysr.model.conformer import ConformerEncoder
from raysr.model.mask import Chunk
from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser
from raysr.train.cutting import Indices
from raysr.train.data import Budget, Data, open_data
from raysr.train.job import TrainJob
from raysr.train.sampler import shard

FOLDER = "RESUME_SEEN"
"""The environment variable that names the folder of what was seen."""
ALIKE = 1e-2
"""By how much the marks of an utterance may differ from those that it is known by."""


class Seen(ConformerEncoder):
    """The Conformer, which writes down the utterances of each step that an optimiser takes."""

    def __init__(self, config: EncoderConfig, mel_bins: int) -> None:
        super().__init__(config, mel_bins)
        self._name = f"{time.time_ns()}-{os.getpid()}.jsonl"
        self._batch: list[list[float]] = []
        register_optimizer_step_post_hook(self._stepped)

    def forward(self, features: Tensor, lengths: Tensor, chunk: Chunk) -> tuple[Tensor, Tensor]:
        if self.training and torch.is_grad_enabled():
            self._batch = [marks(f[:n]) for f, n in zip(features, lengths.tolist(), strict=True)]
        return super().forward(features, lengths, chunk)

    def _stepped(self, optimiser: Optimizer, *_: Any) -> None:
        """Write a step down by its number, which the optimiser's state has from the checkpoint."""
        if self._batch:
            step = int(next(iter(optimiser.state.values()))["step"])
            there = dist.is_initialized()
            rank, ranks = (dist.get_rank(), dist.get_world_size()) if there else (0, 1)
            row = {"step": step, "rank": rank, "ranks": ranks, "utterances": self._batch}
            append_row(Path(os.environ[FOLDER]) / self._name, row)
            self._batch = []


@dataclass(frozen=True)
class Part:
    """What a rank of so many took of a step, ids of utterances."""

    step: int
    rank: int
    ranks: int
    utterances: list[str]


@dataclass(frozen=True)
class Account:
    """What all attempts of a training took together.

    Attributes:
        strange: parts that are not those of the global batch of their step, shared out to so many ranks.
        missing: steps of which a part was never taken.
        epochs: that were taken whole.
        skipped, repeated: utterances that came less or more often than once an epoch.
        ranks: how many trained, a number each time that it changed.
    """

    strange: list[Part]
    missing: list[int]
    epochs: int
    skipped: list[str]
    repeated: list[str]
    ranks: list[int]

    @property
    def is_clean(self) -> bool:
        """Whether every utterance came once an epoch, and where it had to come."""
        return not (self.strange or self.missing or self.skipped or self.repeated)


def marks(features: Tensor) -> list[float]:
    """Return by what the features (T, F) of an utterance are known: their number, and means of some bins."""
    return [float(len(features)), *features.mean(0)[::10].tolist()]


class Names:
    """Knows utterances by their marks.

    Args:
        known: the features (T, F) of each, as the model sees them, by id.
    """

    def __init__(self, known: Mapping[str, Tensor]) -> None:
        self.ids = list(known)
        self._marks = np.array([marks(features) for features in known.values()])
        for number, id in enumerate(self.ids):
            assert np.sort(self._distances(self._marks[number]))[1] > 2 * ALIKE, f"{id} is like another one"

    def __getitem__(self, found: Sequence[float]) -> str:
        distances = self._distances(np.array(found))
        return self.ids[distances.argmin()] if distances.min() < ALIKE else f"unknown {found}"

    def _distances(self, found: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.abs(self._marks - found).max(1)


def account(job: TrainJob, folder: Path) -> Account:
    """Compare what was seen with what the sampler deals to a training that nobody disturbs.

    Args:
        job: that has ended; of one source.
        folder: where :class:`Seen` has written.
    """
    with _data(job) as (data, model):
        read = data.batches.reader.get
        names = Names({u.id: model.normalise(read(u).float()) for u in data.batches.utterances})
        dealt = _deal(data, job)
    parts = list(_parts(folder, names))
    first = [part for part in parts if part.rank == 0]
    counted = {part.step: part.ranks for part in first}  # by the last attempt at a step
    taken = {(part.step, part.rank, part.ranks): part.utterances for part in parts}

    def of_step(step: int) -> list[str] | None:
        ranks, batch = counted.get(step, 0), dealt.batches[step - 1]
        found = [taken.get((step, rank, ranks)) for rank in range(ranks)]
        names_found = [name for part in found for name in part or []]
        if not found or None in found:
            return None
        # ranks that are more than the utterances share these, each for a part of their weight
        return names_found if len(batch) >= ranks else list(set(names_found))

    seen = Counter(name for step in range(1, dealt.end + 1) for name in of_step(step) or [])
    due = {name: dealt.epochs + (name in dealt.ahead) for name in names.ids}

    def shared_out(part: Part) -> list[str]:
        return [names.ids[index] for index in shard(dealt.batches[part.step - 1], part.rank, part.ranks)]

    return Account(
        strange=[part for part in parts if part.utterances != shared_out(part)],
        missing=[step for step in range(1, job.train.steps + 1) if of_step(step) is None],
        epochs=dealt.epochs,
        skipped=[name for name in names.ids if seen[name] < due[name]],
        repeated=[name for name in seen if seen[name] > due.get(name, 0)],
        ranks=[ranks for ranks, _ in groupby(part.ranks for part in first)],
    )


@contextmanager
def _data(job: TrainJob) -> Iterator[tuple[Data, AsrModel]]:
    tokeniser = Tokeniser.load(job.tokeniser)
    model = AsrModel(job.model, tokeniser.vocab_size)
    model.load_state_dict(load_file(job.init))
    with open_data(job, model, tokeniser, _not_here, _not_here, lambda why: None) as data:
        yield data, model


def _not_here(name: str, reason: str) -> None:
    raise RunError(f"utterance {name} cannot be trained on: {reason}")


@dataclass(frozen=True)
class _Dealt:
    """What a sampler deals: each step's batch, and what they come to when the last window ends."""

    batches: list[Indices]
    end: int
    epochs: int
    ahead: set[str]


def _deal(data: Data, job: TrainJob) -> _Dealt:
    assert not isinstance(job.train.batch_seconds, str)
    sampler = data.sampler(Budget(data.frames(job.train.batch_seconds), None))
    batches: list[Indices] = []
    counts = Counter[str]()
    dealt = _Dealt(batches, 0, 0, set())
    for step in range(1, job.train.steps + 1):
        batches.append(sampler.next())
        counts.update(data.names[index] for index in batches[-1])
        state = sampler.state_dict()
        if state["batch"] == 0:  # a window has ended: some utterances have come once more than the others
            ((epochs, used, _),) = state["sources"]
            ahead = {name for name in data.names if counts[name] == epochs + 1}
            assert len(ahead) == used
            assert all(counts[name] == epochs for name in data.names if name not in ahead)
            dealt = _Dealt(batches, step, epochs, ahead)
    return dealt


def _parts(folder: Path, names: Names) -> Iterator[Part]:
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            yield Part(row["step"], row["rank"], row["ranks"], [names[found] for found in row["utterances"]])
