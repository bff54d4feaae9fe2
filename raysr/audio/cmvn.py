"""Global cepstral mean and variance normalisation: sums over a corpus, mergeable across workers."""

import torch
from torch import Tensor

from raysr.errors import CorpusError

VARIANCE_FLOOR = 1e-20


class CmvnAccumulator:
    """Running count, mean and squared deviations of features, kept in float64.

    Blocks are joined by the pairwise update of Chan, Golub and LeVeque (1979), which keeps its precision
    where a difference of large sums would not.
    """

    def __init__(self) -> None:
        self.frames = 0
        self._mean: Tensor | None = None  # (F,)
        self._deviations: Tensor | None = None  # (F,)

    def add(self, features: Tensor) -> None:
        """Count features (T, F); an empty tensor changes nothing."""
        if len(features) == 0:
            return
        block = features.detach().to("cpu", torch.float64)
        mean = block.mean(dim=0)
        self._join(len(block), mean, (block - mean).square().sum(dim=0))

    def merge(self, other: "CmvnAccumulator") -> None:
        """Add everything that ``other`` has counted."""
        if other._mean is not None and other._deviations is not None:
            self._join(other.frames, other._mean, other._deviations)

    def finish(self) -> tuple[Tensor, Tensor]:
        """Return the mean (F,) and the inverse standard deviation (F,), float32.

        Raises:
            CorpusError: no frame was counted.
        """
        if self._mean is None or self._deviations is None:
            raise CorpusError(
                "cannot normalise features: no audio was counted; the labelled set should not be empty"
            )
        variance = (self._deviations / self.frames).clamp_min(VARIANCE_FLOOR)
        return self._mean.float(), variance.rsqrt().float()

    def _join(self, frames: int, mean: Tensor, deviations: Tensor) -> None:
        if self._mean is None or self._deviations is None:
            self.frames, self._mean, self._deviations = frames, mean.clone(), deviations.clone()
            return
        total = self.frames + frames
        shift = mean - self._mean
        self._mean = self._mean + shift * (frames / total)
        self._deviations = self._deviations + deviations + shift.square() * (self.frames * frames / total)
        self.frames = total
