"""What a prefix beam search knows between two frames: the kept prefixes, and how to trace them back."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from raysr.decode.backoff import Integers, Records
from raysr.decode.beam_records import NODE, PREFIX
from raysr.decode.beam_trace import traced

ROOT, NOBODY = np.uint64(0x9E3779B97F4A7C15), np.uint64(0x14057B7EF767814F)


@dataclass(slots=True)
class BeamState:
    """The beams of a batch, and the tokens they were made of.

    Node ``time × beam + place + 1`` is a token that was put at, or whose posterior peaked in, frame ``time``.

    Attributes:
        prefixes: of each utterance (B, beam), of which the first ``alive`` are there.
        alive: prefixes kept of each utterance (B,).
        frames: frames read of each utterance (B,).
        nodes: tracebacks (B, capacity, beam).
    """

    prefixes: Records
    alive: Integers
    frames: Integers
    nodes: Records

    @classmethod
    def new(cls, batch: int, beam: int, lm_state: int, bias_states: Integers) -> Self:
        """Return the state before the first frame: the empty prefix alone."""
        prefixes = np.zeros((batch, beam), PREFIX)
        for field in ("nonblank", "best_nonblank", "peak"):
            prefixes[field] = -np.inf
        prefixes["hash"], prefixes["parent"] = ROOT, NOBODY
        prefixes["lm_state"], prefixes["bias_state"] = lm_state, bias_states[:, None]
        return cls(
            prefixes=prefixes,
            alive=np.ones(batch, np.int64),
            frames=np.zeros(batch, np.int64),
            nodes=np.zeros((batch, 0, beam), NODE),
        )

    def kept(self, utterance: int) -> Records:
        """Return the prefixes of an utterance (n,), a view."""
        return self.prefixes[utterance, : self.alive[utterance]]

    def keep(self, utterance: int, places: NDArray[np.bool_]) -> None:
        """Drop the prefixes of an utterance that are not True in ``places`` (n,)."""
        chosen = self.kept(utterance)[places]
        self.prefixes[utterance, : len(chosen)] = chosen
        self.alive[utterance] = len(chosen)

    def reserve(self, frames: int) -> None:
        """Make room for the nodes of ``frames`` more frames."""
        capacity = self.nodes.shape[1]
        missing = int(self.frames.max(initial=0)) + frames - capacity
        if missing > 0:
            self.nodes = np.pad(self.nodes, ((0, 0), (0, max(missing, capacity)), (0, 0)))

    def trace(self, utterance: int, place: int) -> tuple[list[int], list[int], list[float]]:
        """Return tokens, their frames and their log-posteriors on the best alignment of a kept prefix."""
        tokens, times, peaks = traced(self.prefixes[utterance, place], self.nodes[utterance])
        return tokens.tolist(), times.tolist(), peaks.tolist()


def total(prefixes: Records) -> NDArray[np.float64]:
    """Return the CTC log-probability of prefixes (n,)."""
    return np.logaddexp(prefixes["blank"], prefixes["nonblank"])
