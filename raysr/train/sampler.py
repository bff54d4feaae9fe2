"""Which utterances make up each global batch: seeded, stateless but for a position, equal steps on every rank.

The order of a stream's epoch is a function of (seed, epoch) alone, so the whole state is two integers a stream,
a resume costs one shuffle, and a changed number of workers goes on with the same sequence of global batches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Position:
    """Where a stream stands: the epoch, and how many of its batches are used up."""

    epoch: int = 0
    batch: int = 0


class BatchStream:
    """An endless sequence of batches from one set of utterances, similar lengths together, shuffled every epoch.

    Args:
        frames: length of each utterance in feature frames.
        batch_frames: a batch holds as many utterances as fit into this many frames, padding included, and
            at least one.
        seed: of every shuffle.
    """

    def __init__(self, frames: Sequence[int], batch_frames: int, seed: int) -> None:
        if not len(frames):
            raise ValueError("a stream needs at least one utterance")
        self.frames = np.asarray(frames, dtype=np.int64)
        self.batch_frames = batch_frames
        self.seed = seed
        self.position = Position()
        self._epoch: tuple[int, list[np.ndarray]] | None = None

    def next(self) -> np.ndarray:
        """Return the utterance indices of the next batch and move on."""
        plan = self._plan(self.position.epoch)
        batch = plan[self.position.batch]
        done = self.position.batch + 1
        self.position = (
            Position(self.position.epoch + 1, 0) if done == len(plan) else Position(self.position.epoch, done)
        )
        return batch

    def _plan(self, epoch: int) -> list[np.ndarray]:
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, list(self._batches(epoch)))
        return self._epoch[1]

    def _batches(self, epoch: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng((self.seed, epoch))
        # jittered lengths: neighbours are alike, yet batches differ from epoch to epoch
        order = np.argsort(self.frames * rng.uniform(0.8, 1.25, len(self.frames)), kind="stable")
        batches, start, longest = [], 0, 0
        for end, index in enumerate(order):
            longest_with = max(longest, int(self.frames[index]))
            if end > start and longest_with * (end + 1 - start) > self.batch_frames:
                batches.append(order[start:end])
                start, longest_with = end, int(self.frames[index])
            longest = longest_with
        batches.append(order[start:])
        return iter([batches[i] for i in rng.permutation(len(batches))])


class MixedSampler:
    """Global batches of labelled and pseudo-labelled utterances in fixed shares of their seconds.

    Indices below ``len(labelled)`` are labelled utterances, the others pseudo-labelled ones.
    """

    def __init__(
        self,
        labelled: Sequence[int],
        pseudo: Sequence[int],
        batch_frames: int,
        labelled_share: float,
        seed: int,
    ) -> None:
        shares = [(0, labelled, labelled_share if len(pseudo) else 1.0)]
        shares.append((len(labelled), pseudo, 1.0 - labelled_share if len(labelled) else 1.0))
        self.streams = [
            (offset, BatchStream(frames, max(1, round(share * batch_frames)), seed + offset))
            for offset, frames, share in shares
            if len(frames) and share > 0
        ]

    def next(self) -> np.ndarray:
        """Return the indices of the next global batch, longest utterance first."""
        parts = [offset + stream.next() for offset, stream in self.streams]
        lengths = [
            stream.frames[part - offset] for (offset, stream), part in zip(self.streams, parts, strict=True)
        ]
        return np.concatenate(parts)[np.argsort(-np.concatenate(lengths), kind="stable")]

    def state_dict(self) -> list[list[int]]:
        return [[stream.position.epoch, stream.position.batch] for _, stream in self.streams]

    def load_state_dict(self, state: Sequence[Sequence[int]]) -> None:
        for (_, stream), (epoch, batch) in zip(self.streams, state, strict=True):
            stream.position = Position(epoch, batch)


def shard(batch: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """Return one rank's part of a global batch sorted by length: every rank gets like lengths, and at least one.

    A batch of fewer utterances than ranks is dealt round again; the caller weighs each utterance by how often it
    was dealt (see :func:`weight`), so that the gradient stays that of the global mean.
    """
    if len(batch) >= world_size:
        return batch[rank::world_size]
    return batch[[rank % len(batch)]]


def weight(batch_size: int, rank: int, world_size: int) -> float:
    """Return the factor that makes a rank's *summed* loss its part of the global mean under DDP averaging."""
    if batch_size >= world_size:
        return world_size / batch_size
    copies = len(range(rank % batch_size, world_size, batch_size))
    return world_size / (batch_size * copies)
