"""What a prefix beam search knows between two frames: the kept prefixes, and how to trace them back."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Hashes = NDArray[np.uint64]

ROOT, NOBODY, ORPHAN = (np.uint64(h) for h in (0x9E3779B97F4A7C15, 0x5851F42D4C957F2D, 0x14057B7EF767814F))
SPREAD, STIR = np.uint64(0xD6E8FEB86659FD93), np.uint64(0xBF58476D1CE4E5B9)


@dataclass(slots=True)
class Prefixes:
    """The kept prefixes, every field (B, beam), log-probabilities natural.

    Attributes:
        blank, nonblank: log-probability of all alignments that end in a blank, in the last token.
        best_blank, best_nonblank: that of the best such alignment.
        node_blank, node_nonblank: where the traceback of that alignment begins; 0 before the first token.
        before: the node that ``node_nonblank`` follows.
        peak: highest log-posterior of the last token within its run on ``best_nonblank``.
        lm, lm_state: language-model log-probability of the prefix, and the state after it.
        last: the last token; the blank before the first one.
        length: tokens in the prefix.
        hash, parent: hash of the prefix, and of the prefix without its last token.
    """

    blank: Floats
    nonblank: Floats
    best_blank: Floats
    best_nonblank: Floats
    node_blank: Integers
    node_nonblank: Integers
    before: Integers
    peak: Floats
    lm: Floats
    lm_state: Integers
    last: Integers
    length: Integers
    hash: Hashes
    parent: Hashes

    @classmethod
    def empty(cls, batch: int, beam: int, lm_state: int) -> Self:
        """Return beams that hold the empty prefix alone; the other places are impossible ones."""
        impossible, zero = np.full((batch, beam), -np.inf), np.zeros((batch, beam), np.int64)
        first = impossible.copy()
        first[:, 0] = 0.0
        hashes = np.full((batch, beam), NOBODY)
        hashes[:, 0] = ROOT
        return cls(
            blank=first,
            nonblank=impossible,
            best_blank=first.copy(),
            best_nonblank=impossible.copy(),
            node_blank=zero,
            node_nonblank=zero.copy(),
            before=zero.copy(),
            peak=impossible.copy(),
            lm=np.zeros((batch, beam)),
            lm_state=np.full((batch, beam), lm_state, np.int64),
            last=zero.copy(),
            length=zero.copy(),
            hash=hashes,
            parent=np.full((batch, beam), ORPHAN),
        )

    def total(self) -> Floats:
        """Return the CTC log-probability of every prefix."""
        return np.logaddexp(self.blank, self.nonblank)

    def rows(self, rows: Integers) -> Self:
        """Return the beams of the utterances ``rows``."""
        return type(self)(*(getattr(self, f.name)[rows] for f in fields(self)))

    def put(self, rows: Integers, other: Self) -> None:
        """Overwrite the beams of the utterances ``rows``."""
        for f in fields(self):
            getattr(self, f.name)[rows] = getattr(other, f.name)

    def pick(self, places: Integers) -> Self:
        """Return the prefixes at ``places`` (B, beam) of the flattened fields."""
        return type(self)(*(getattr(self, f.name).reshape(-1)[places] for f in fields(self)))

    def forget(self, places: NDArray[np.bool_]) -> None:
        """Make ``places`` (B, beam) impossible, lest a copy of another prefix lives on in one of them."""
        for log_prob in (self.blank, self.nonblank, self.best_blank, self.best_nonblank):
            log_prob[places] = -np.inf
        self.hash[places], self.parent[places] = NOBODY, ORPHAN


def extend_hash(hashes: Hashes, tokens: Integers) -> Hashes:
    """Return the hashes of prefixes after one more token each."""
    mixed = (hashes + tokens.astype(np.uint64)) * SPREAD
    mixed ^= mixed >> np.uint64(32)
    mixed *= STIR
    return mixed ^ (mixed >> np.uint64(29))


@dataclass(slots=True)
class BeamState:
    """The beams of a batch, and the tokens they were made of.

    Node ``time × beam + place + 1`` is a token that was put at, or whose posterior peaked in, frame ``time``.

    Attributes:
        prefixes: what is kept of each utterance.
        frames: frames read of each utterance (B,).
        tokens, parents, peaks: of each node (B, capacity, beam) its token, the node before, its posterior.
    """

    prefixes: Prefixes
    frames: Integers
    tokens: NDArray[np.int32]
    parents: NDArray[np.int32]
    peaks: NDArray[np.float32]

    @classmethod
    def new(cls, batch: int, beam: int, lm_state: int) -> Self:
        """Return the state before the first frame."""
        shape = (batch, 0, beam)
        return cls(
            prefixes=Prefixes.empty(batch, beam, lm_state),
            frames=np.zeros(batch, np.int64),
            tokens=np.zeros(shape, np.int32),
            parents=np.zeros(shape, np.int32),
            peaks=np.zeros(shape, np.float32),
        )

    def reserve(self, frames: int) -> None:
        """Make room for the nodes of ``frames`` more frames."""
        capacity = self.tokens.shape[1]
        missing = int(self.frames.max(initial=0)) + frames - capacity
        if missing > 0:
            room = ((0, 0), (0, max(missing, capacity)), (0, 0))
            self.tokens, self.parents = np.pad(self.tokens, room), np.pad(self.parents, room)
            self.peaks = np.pad(self.peaks, room)

    def trace(self, utterance: int, place: int) -> tuple[list[int], list[int], list[float]]:
        """Return tokens, their frames and their log-posteriors on the best alignment of a kept prefix."""
        p, beam = self.prefixes, self.tokens.shape[2]
        on_blank = p.best_blank[utterance, place] >= p.best_nonblank[utterance, place]
        node = int((p.node_blank if on_blank else p.node_nonblank)[utterance, place])
        tokens, times, peaks = [], [], []
        while node:
            time, at = divmod(node - 1, beam)
            tokens.append(int(self.tokens[utterance, time, at]))
            times.append(time)
            peaks.append(float(self.peaks[utterance, time, at]))
            node = int(self.parents[utterance, time, at])
        return tokens[::-1], times[::-1], peaks[::-1]
