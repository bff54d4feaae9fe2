"""The hypotheses of a search that goes token by token, open or ended, as tensors."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from raysr.model.decoder import take


@dataclass(slots=True)
class TokenBeam:
    """N hypotheses of each of B utterances.

    Attributes:
        score: the weighted sum (B, N) they are ranked by, float64; ``-inf`` where a place is empty.
        parts: the unweighted scores (B, N, P) it is made of, float64.
        tokens: (B, N, U), of which the first ``length`` count.
        length: tokens of each (B, N).
    """

    score: Tensor
    parts: Tensor
    tokens: Tensor
    length: Tensor

    @classmethod
    def empty(cls, batch: int, places: int, parts: int, longest: int, device: torch.device) -> Self:
        """Return places that hold nothing yet, with room for ``longest`` tokens."""
        return cls(
            score=torch.full((batch, places), -torch.inf, dtype=torch.float64, device=device),
            parts=torch.zeros(batch, places, parts, dtype=torch.float64, device=device),
            tokens=torch.zeros(batch, places, longest, dtype=torch.long, device=device),
            length=torch.zeros(batch, places, dtype=torch.long, device=device),
        )

    def where(self, kept: Tensor) -> Self:
        """Return the same places, of which those that are not ``kept`` (B, N) are empty."""
        score = self.score.masked_fill(~kept, -torch.inf)
        return type(self)(score, self.parts, self.tokens, self.length)

    def merged(self, other: Self) -> Self:
        """Return the best of both, best first, in as many places as there are here."""
        score, places = torch.cat((self.score, other.score), dim=1).topk(self.score.shape[1], dim=1)
        parts = torch.cat((self.parts, other.parts), dim=1)
        tokens = torch.cat((self.tokens, other.tokens), dim=1)
        length = torch.cat((self.length, other.length), dim=1)
        return type(self)(score, take(parts, places), take(tokens, places), take(length, places))

    def select(self, utterances: Tensor) -> Self:
        """Return the hypotheses of the utterances (B',)."""
        rows = (x[utterances] for x in (self.score, self.parts, self.tokens, self.length))
        return type(self)(*rows)
