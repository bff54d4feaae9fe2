"""What a rank trains on: sources, how their features are read, and which of them make up each batch."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raysr.corpus.manifest import open_manifest
from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError
from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser
from raysr.train.batch import Batch, BatchMaker
from raysr.train.distillation import SequenceTargets, Targets, WordTargets
from raysr.train.distributions import StoredDistributions
from raysr.train.job import TrainJob
from raysr.train.memory.shapes import Lengths
from raysr.train.reading.faults import Unreadable
from raysr.train.reading.harder import Harder
from raysr.train.reading.options import open_reader
from raysr.train.reading.reader import FeatureReader
from raysr.train.sampler import MixedSampler, scale, shard
from raysr.train.seeds import mix


@dataclass(frozen=True)
class Part:
    """A rank's part of a step's global batch.

    Attributes:
        pieces: of it, one after the other through the model.
        names: ids of the utterances of each piece.
        factor: of their summed losses, which makes their gradient its part of the global mean's under averaging.
    """

    pieces: Sequence[Batch]
    names: Sequence[Sequence[str]]
    factor: float

    def dump(self) -> list[dict[str, Any]]:
        """Return the tensors of each piece by name, and the ids of its utterances."""
        return [
            {"ids": list(names), **batch.dump()} for names, batch in zip(self.names, self.pieces, strict=True)
        ]

    @property
    def padding(self) -> float:
        """The share of all features that is no utterance's."""
        held = sum(batch.features.shape[0] * batch.features.shape[1] for batch in self.pieces)
        return 1 - sum(int(batch.lengths.sum()) for batch in self.pieces) / max(1, held)


@dataclass(frozen=True)
class Budget:
    """How much audio goes together, in feature frames, padding included.

    Attributes:
        batch: of a global batch.
        piece: of what a rank puts through its model at once; None: all of its part.
    """

    batch: int
    piece: int | None


class Data:
    """The utterances of a job that can be trained on, read and dealt for one rank.

    Attributes:
        batches: makes batches of them.
        lengths: of each source, as the sampler deals them.
        names: ids, through all sources in their order.
        dev: makes batches of the development set, if there is one.
        dev_frames: of its utterances.
    """

    def __init__(
        self,
        job: TrainJob,
        sources: Sequence[Sequence[Utterance]],
        shares: Sequence[float],
        dev: Sequence[Utterance],
        reader: FeatureReader,
        tokeniser: Tokeniser,
        harder: Harder | None = None,
    ) -> None:
        self.job, augment = job, job.train.augment
        everything = [utterance for source in sources for utterance in source]
        self.batches = BatchMaker(everything, reader, tokeniser, augment, job.seed, harder)
        self.batches.targets = _targets(job, self.batches, tokeniser)
        self.names = [utterance.id for utterance in everything]
        self.lengths = Lengths(
            frames=[[reader.frames(u) for u in source] for source in sources],
            tokens=_dealt(_longest_texts(self.batches), sources),
            shares=shares,
            max_padding=job.train.max_padding,
            stretch=augment.waveform.stretch / (1 - augment.warp.tempo),
            frame_shift_ms=job.features.frame_shift_ms,
        )
        self._frames = np.array([frames for source in self.lengths.frames for frames in source])
        self.dev = BatchMaker(dev, reader, tokeniser, augment) if dev else None
        self.dev_frames = [reader.frames(u) for u in dev]

    def sampler(self, budget: Budget) -> MixedSampler:
        """Return a sampler at the beginning of the first epoch."""
        lengths, job = self.lengths, self.job
        return MixedSampler(lengths.frames, lengths.shares, budget.batch, lengths.max_padding, job.seed)

    def frames(self, seconds: float) -> int:
        """Return seconds of audio as feature frames."""
        return max(1, round(seconds * 1000 / self.job.features.frame_shift_ms))

    def part(self, step: int, indices: np.ndarray, piece: int | None, rank: int, ranks: int) -> Part:
        """Make a rank's part of the global batch ``indices``, every draw a function of (seed, step, rank)."""
        mine = shard(indices, rank, ranks)
        generator = torch.Generator().manual_seed(mix(self.job.seed, step, rank, 2))
        runs = self._cut(mine, piece)
        pieces = [self.batches.make(run, generator) for run in runs]
        names = [[self.names[i] for i in run] for run in runs]
        return Part(pieces, names, scale(self.batches.weights[indices], rank, ranks))

    def fingerprint(self, budget: Budget) -> str:
        """Return what tells apart data that are dealt differently; the number of ranks is no part of it."""
        told = [self.names, self.lengths.frames, self.lengths.shares, self.lengths.max_padding, budget.batch]
        return hashlib.sha256(repr([*told, self.job.seed]).encode()).hexdigest()[:16]

    def _cut(self, indices: np.ndarray, piece: int | None) -> list[np.ndarray]:
        """Cut utterances, the longest first, into runs of no more than ``piece`` padded frames."""
        if piece is None:
            return [indices]
        runs, first = [], 0
        while first < len(indices):
            count = max(1, piece // int(self._frames[indices[first]]))
            runs.append(indices[first : first + count])
            first += count
        return runs


@contextmanager
def open_data(
    job: TrainJob,
    model: AsrModel,
    tokeniser: Tokeniser,
    leave_out: Callable[[str, str], None],
    tell: Callable[[str, str], None],
    warn: Callable[[str], None],
) -> Iterator[Data]:
    """Yield the data of a job; what its reader has to write is written when the block ends.

    Args:
        job: what is trained.
        model: says how many frames it makes of an utterance.
        tokeniser: of its texts.
        leave_out: called with the id and the reason of each utterance that is too short for its text, by all ranks
            alike, before this yields.
        tell: called with those of each that cannot be read in the middle of the training, in any thread.
        warn: called when a cache of features can keep no more.

    Raises:
        CorpusError: there is nothing to train on, or an utterance has no text or no cached features.
        AudioError: a folder of sounds for augmentation is not there, or holds none.
    """
    sources = [_read(source.manifest, "training") for source in job.sources]
    dev = _read(job.dev, "development") if job.dev else []
    everything = [utterance for source in (*sources, dev) for utterance in source]
    with open_reader(job.train.reading, job.features, job.cache, everything, tell, warn) as reader:
        fits = partial(_fits, reader=reader, model=model, tokeniser=tokeniser, leave_out=leave_out)
        kept = [[u for u in source if fits(u)] for source in sources]
        if not any(kept):
            raise CorpusError(
                f"{' and '.join(source.manifest for source in job.sources)}: no utterance is long enough for its "
                "text: there is nothing to train on"
            )
        filled = [
            (source, utterances) for source, utterances in zip(job.sources, kept, strict=True) if utterances
        ]
        shares = [source.share for source, _ in filled]
        waveform, harder = job.train.augment.waveform, None
        if waveform.share and waveform.parts:
            enough = partial(_is_enough, model=model, tokeniser=tokeniser)
            harder = Harder(waveform, job.features, Unreadable(len(everything), tell), enough)
        yield Data(job, [utterances for _, utterances in filled], shares, dev, reader, tokeniser, harder)


def _read(manifest: str, what: str) -> list[Utterance]:
    utterances = list(open_manifest(manifest))
    if not utterances:
        raise CorpusError(f"{manifest}: an empty {what} set: give utterances with texts")
    return utterances


def _fits(
    utterance: Utterance,
    reader: FeatureReader,
    model: AsrModel,
    tokeniser: Tokeniser,
    leave_out: Callable[[str, str], None],
) -> bool:
    """Say whether CTC can align an utterance's text with what the encoder makes of its audio."""
    if not utterance.text:
        return True  # an error that names it follows
    frames = reader.frames(utterance)
    if _is_enough(utterance, frames, model, tokeniser):
        return True
    leave_out(
        utterance.id,
        f"too short for its text: the encoder makes {model.output_frames(frames)} frames of {frames}, and CTC needs "
        f"{_needed(utterance, tokeniser)}",
    )
    return False


def _is_enough(utterance: Utterance, frames: int, model: AsrModel, tokeniser: Tokeniser) -> bool:
    """Say whether CTC can align an utterance's text with what the encoder makes of so many frames."""
    return model.output_frames(frames) >= _needed(utterance, tokeniser)


def _needed(utterance: Utterance, tokeniser: Tokeniser) -> int:
    """Return how many frames CTC needs for an utterance's text."""
    tokens = tokeniser.encode(utterance.text or "")
    return max(
        1, len(tokens) + sum(one == next_ for one, next_ in pairwise(tokens))
    )  # a blank between equals


def _targets(job: TrainJob, batches: BatchMaker, tokeniser: Tokeniser) -> Targets | None:
    word, sequence = job.distillation.word, job.distillation.sequence
    if word and job.distributions:
        stored = StoredDistributions([Path(folder) for folder in job.distributions], tokeniser)
        return WordTargets(batches.utterances, batches.tokens, stored, word)
    return SequenceTargets(batches.utterances, batches.tokens, tokeniser, sequence) if sequence else None


def _longest_texts(batches: BatchMaker) -> list[int]:
    """Return, for each utterance, the tokens of its text, or of its teacher's where that is longer."""
    own = [len(tokens) for tokens in batches.tokens]
    if not isinstance(batches.targets, SequenceTargets):
        return own
    return [max(pair) for pair in zip(own, map(len, batches.targets.tokens), strict=True)]


def _dealt(values: Sequence[int], sources: Sequence[Sequence[Any]]) -> list[list[int]]:
    """Return values that count through all sources, source by source."""
    remaining = iter(values)
    return [[next(remaining) for _ in source] for source in sources]
