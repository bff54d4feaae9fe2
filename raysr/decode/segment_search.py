"""How the frames of one open segment are searched: greedily, or by a beam that settles as it goes."""

from typing import Protocol

import torch
from torch import Tensor

from raysr.decode.bias import ContextBias
from raysr.decode.decode_config import DecodeConfig
from raysr.decode.greedy import greedy
from raysr.decode.hypothesis import EMPTY, Hypothesis
from raysr.decode.language_model import LanguageModel
from raysr.decode.lm_pass import PassBeam


class SegmentSearch(Protocol):
    """A way to search the frames of one segment."""

    def read(self, log_probs: Tensor) -> None:
        """Read natural-log CTC posteriors (1, t, V)."""
        ...

    def best(self) -> tuple[Hypothesis, tuple[int, ...]]:
        """Return the best hypothesis so far, and those of its tokens that will stay."""
        ...

    def nbest(self, n: int) -> list[Hypothesis]:
        """Return up to ``n`` hypotheses of the segment as it stands, best first."""
        ...


class GreedySearch:
    """The best token of every frame; no token it has put changes later."""

    def __init__(self) -> None:
        self._frames: list[Tensor] = []

    def read(self, log_probs: Tensor) -> None:
        self._frames.append(log_probs.clone())  # of what may be a part of a large batch

    def best(self) -> tuple[Hypothesis, tuple[int, ...]]:
        (found,) = self.nbest(1)
        return found, found.tokens

    def nbest(self, n: int) -> list[Hypothesis]:
        if not self._frames:
            return [EMPTY]
        frames = torch.cat(self._frames, dim=1)  # (1, T, V)
        return greedy(frames, torch.tensor([frames.shape[1]]))


class BeamSearch:
    """A prefix beam; every ``settle_frames`` frames it settles what is older than that."""

    def __init__(
        self,
        config: DecodeConfig,
        lm: LanguageModel | None,
        bias: ContextBias | None,
        settle_frames: int,
    ) -> None:
        self._passes = PassBeam(config, lm, bias)
        self._beam = self._passes.beam
        self._state = self._beam.start(1)
        self._settle_frames = settle_frames

    def read(self, log_probs: Tensor) -> None:
        while log_probs.shape[1]:
            until_settled = self._settle_frames - int(self._state.frames[0]) % self._settle_frames
            self._beam.advance(self._state, log_probs[:, :until_settled])
            log_probs = log_probs[:, until_settled:]
            frames = int(self._state.frames[0])
            if frames % self._settle_frames == 0:
                self._beam.settle(self._state, frames - self._settle_frames)

    def best(self) -> tuple[Hypothesis, tuple[int, ...]]:
        ((found,),) = self._beam.nbest(self._state, 1, final=False)
        return found, self._beam.stable_prefix(self._state)[0]

    def nbest(self, n: int) -> list[Hypothesis]:
        return self._passes.nbest(self._state, n)[0]


def open_search(
    config: DecodeConfig, lm: LanguageModel | None, bias: ContextBias | None, frame_seconds: float
) -> SegmentSearch:
    """Return the search that ``config.method`` names, before the first frame of a segment."""
    if config.method == "greedy":
        return GreedySearch()
    return BeamSearch(config, lm, bias, max(1, round(config.settle / frame_seconds)))
