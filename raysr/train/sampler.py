"""Which utterances make up each global batch: seeded, in fixed shares, equal steps on every rank, O(1) resume.

Every source of utterances is shuffled anew each epoch and dealt out, in its share of the seconds, into windows of some
dozens of batches; :mod:`raysr.train.cutting` cuts a window into batches of like lengths. An epoch's order is a
function of (seed, source, epoch) and a window's batches of (seed, window): the state is a few integers, a resume
costs one shuffle, and a changed number of workers goes on with the same sequence of global batches.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from raysr.train.cutting import Indices, plan

MOST_BATCHES = 64
FEWEST_BATCHES = 8


def temperature_shares(hours: Sequence[float], temperature: float) -> list[float]:
    """Return shares in proportion to hours^(1/T): 1 leaves sources as large as they are, ∞ makes them equal.

    Source: the sampling of languages in multilingual models (Devlin 2018; Arivazhagan et al. 2019).
    """
    longest = max(hours)
    powers = [(h / longest) ** (1 / temperature) for h in hours]
    return [power / sum(powers) for power in powers]


class Source:
    """An endless sequence of one source's utterances: every one once an epoch, in a new order each time.

    Args:
        frames: length of each utterance in feature frames.
        share: of all frames that are dealt, in (0, 1].
        seed: of every shuffle.
    """

    def __init__(self, frames: Sequence[int], share: float, seed: Sequence[int]) -> None:
        self.frames = np.asarray(frames, dtype=np.int64)
        self.share = share
        self.dealt = 0
        self._seed = seed
        self._epoch, self._used = 0, 0
        self._order: Indices | None = None

    def next(self) -> int:
        """Return the index of the next utterance and move on."""
        if self._order is None:
            self._order = np.random.default_rng((*self._seed, self._epoch)).permutation(len(self.frames))
        index = int(self._order[self._used])
        self.dealt += int(self.frames[index])
        self._used += 1
        if self._used == len(self.frames):
            self._epoch, self._used, self._order = self._epoch + 1, 0, None
        return index

    @property
    def state(self) -> list[int]:
        """The epoch, how many of its utterances are dealt, and how many frames were dealt in all."""
        return [self._epoch, self._used, self.dealt]

    @state.setter
    def state(self, state: Sequence[int]) -> None:
        self._epoch, self._used, self.dealt = state
        self._order = None


class MixedSampler:
    """Global batches of several sources' utterances.

    An utterance's index counts through all sources in their order. In the long run a source gets its share of the
    frames, to within a few utterances however long the run. A batch holds an utterance twice only where a source is
    too small for its share, or begins a new epoch within a window and draws early what it has drawn last.

    Args:
        sources: the length in feature frames of each utterance of each source.
        shares: of the frames, one for each source; they need not add up to 1.
        batch_frames: a batch of two or more holds no more frames, padding included.
        max_padding: the largest share of a batch that is padding, in [0, 1).
        seed: of every draw.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[int]],
        shares: Sequence[float],
        batch_frames: int,
        max_padding: float,
        seed: int,
    ) -> None:
        if not sources or not all(len(frames) for frames in sources):
            raise ValueError("a sampler needs sources of at least one utterance each")
        whole = sum(shares)
        self.sources = [
            Source(frames, share / whole, (seed, number))
            for number, (frames, share) in enumerate(zip(sources, shares, strict=True))
        ]
        self.frames = np.concatenate([source.frames for source in self.sources])
        self._first = np.cumsum([0, *(len(source.frames) for source in self.sources)])
        self._budget, self._max_padding, self._seed = max(1, batch_frames), max_padding, seed
        self._window_frames = self._size()
        self._window, self._batch = 0, 0
        self._begun_at = self._states()
        self._batches: list[Indices] | None = None

    def next(self) -> Indices:
        """Return the indices of the next global batch, longest utterance first."""
        if self._batches is None:
            self._begun_at = self._states()
            self._batches = self._deal()
        batch = self._batches[self._batch]
        self._batch += 1
        if self._batch == len(self._batches):
            self._window, self._batch, self._batches = self._window + 1, 0, None
            self._begun_at = self._states()
        return batch[np.argsort(-self.frames[batch], kind="stable")]

    def state_dict(self) -> dict[str, Any]:
        """Return where the next batch is: in which window, and where the sources stood when that began."""
        return {"window": self._window, "batch": self._batch, "sources": self._begun_at}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken, by a sampler of the same arguments."""
        for source, position in zip(self.sources, state["sources"], strict=True):
            source.state = position
        self._window, self._batch, self._batches = state["window"], 0, None
        self._begun_at = self._states()
        if state["batch"]:
            self._batches = self._deal()
            self._batch = state["batch"]

    def _deal(self) -> list[Indices]:
        indices, groups, total = [], [], 0
        while total < self._window_frames:
            # the source that is furthest behind its share
            number = min(
                range(len(self.sources)), key=lambda n: self.sources[n].dealt / self.sources[n].share
            )
            index = int(self._first[number]) + self.sources[number].next()
            indices.append(index)
            groups.append(number)
            total += int(self.frames[index])
        chosen, rng = np.array(indices), np.random.default_rng((self._seed, self._window, 0xBA7C4))
        batches = plan(self.frames[chosen], np.array(groups), self._budget, self._max_padding, rng)
        return [chosen[batch] for batch in batches]

    def _size(self) -> int:
        """Return a window's frames: many batches, yet no utterance twice if that leaves enough of them."""
        until_repeated = [int(s.frames.sum()) / s.share for s in self.sources]
        fewest = min(FEWEST_BATCHES * self._budget, max(until_repeated))
        return max(1, round(min(MOST_BATCHES * self._budget, max(fewest, min(until_repeated)))))

    def _states(self) -> list[list[int]]:
        return [source.state for source in self.sources]


def shard(batch: Indices, rank: int, world_size: int) -> Indices:
    """Return one rank's part of a global batch sorted by length: every rank gets like lengths, and at least one.

    A batch of fewer utterances than ranks is dealt round again; the caller weighs each utterance by how often it
    was dealt (see :func:`scale`), so that the gradient stays that of the global mean.
    """
    if len(batch) >= world_size:
        return batch[rank::world_size]
    return batch[[rank % len(batch)]]


def scale(weights: Iterable[float], rank: int, world_size: int) -> float:
    """Return the factor that makes a rank's *summed* loss its part of the global weighted mean under DDP averaging.

    ``weights`` are those of the global batch; the rank's sum is over each utterance's loss times its weight.
    """
    weights = list(weights)
    copies = 1
    if len(weights) < world_size:
        copies = len(range(rank % len(weights), world_size, len(weights)))
    return world_size / (sum(weights) * copies)
