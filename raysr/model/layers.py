"""Layers that several encoders and the decoder share."""

import torch.nn.functional as F
from torch import Tensor, nn


class FeedForward(nn.Module):
    """Pre-norm position-wise feed-forward: (B, T, dim) -> (B, T, dim), without the residual.

    Dropout is on the output only: drawing it for the hidden layer as well is 8 % of a training step on a CPU.
    """

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.contract(F.silu(self.expand(self.norm(x)))))
