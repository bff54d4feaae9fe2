"""The Conformer encoder (Gulati et al. 2020, arXiv:2005.08100), causal where it has to stream."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysr.model.attention import KeyValueCache, Rotary, SelfAttention
from raysr.model.config import EncoderConfig
from raysr.model.encoder import BlockEncoder
from raysr.model.layers import FeedForward


class ConvolutionModule(nn.Module):
    """Pre-norm gated depthwise convolution: (B, T, dim) -> (B, T, dim), without the residual.

    LayerNorm instead of BatchNorm: its statistics are the same in a chunk and in the whole utterance.
    """

    def __init__(self, dim: int, kernel: int, causal: bool, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.gate = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv1d(dim, dim, kernel, groups=dim)
        self.depthwise_norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.left = kernel - 1 if causal else (kernel - 1) // 2
        self.right = kernel - 1 - self.left

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Frames that are not ``valid`` (B, T) count as zeros, like those around the utterance."""
        gated = self._gated(x).masked_fill(~valid.unsqueeze(-1), 0.0)
        return self._convolve(F.pad(gated, (0, 0, self.left, self.right)))

    def initial_cache(self, batch: int) -> Tensor:
        return self.output.weight.new_zeros(batch, self.left, self.output.in_features)

    def step(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve one chunk after the ``left`` frames of convolution input in ``cache`` (B, left, dim)."""
        gated = torch.cat((cache, self._gated(x)), dim=1)
        return self._convolve(gated), gated[:, gated.shape[1] - self.left :]

    def _gated(self, x: Tensor) -> Tensor:
        return F.glu(self.gate(self.norm(x)), dim=-1)

    def _convolve(self, gated: Tensor) -> Tensor:
        x = self.depthwise(gated.transpose(1, 2)).transpose(1, 2)
        return self.dropout(self.output(F.silu(self.depthwise_norm(x))))


class ConformerCache(NamedTuple):
    """What a block remembers of a stream."""

    attention: KeyValueCache
    convolution: Tensor


class ConformerBlock(nn.Module):
    """Half feed-forward, self-attention, convolution, half feed-forward, norm."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.feed_forward_before = FeedForward(config.dim, config.feed_forward, config.dropout)
        self.attention_norm = nn.LayerNorm(config.dim)
        self.attention = SelfAttention(config.dim, config.heads)
        self.convolution = ConvolutionModule(config.dim, config.kernel, config.dynamic_chunk, config.dropout)
        self.feed_forward_after = FeedForward(config.dim, config.feed_forward, config.dropout)
        self.norm = nn.LayerNorm(config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, valid: Tensor, positions: Rotary) -> Tensor:
        x = torch.add(x, self.feed_forward_before(x), alpha=0.5)
        x = x + self.dropout(self.attention(self.attention_norm(x), mask, positions))
        x = x + self.convolution(x, valid)
        return self.norm(torch.add(x, self.feed_forward_after(x), alpha=0.5))

    def initial_cache(self, batch: int) -> ConformerCache:
        return ConformerCache(self.attention.initial_cache(batch), self.convolution.initial_cache(batch))

    def step(
        self, x: Tensor, cache: ConformerCache, positions: Rotary, keep: int
    ) -> tuple[Tensor, ConformerCache]:
        x = torch.add(x, self.feed_forward_before(x), alpha=0.5)
        attended, attention = self.attention.step(self.attention_norm(x), cache.attention, positions, keep)
        x = x + self.dropout(attended)
        convolved, convolution = self.convolution.step(x, cache.convolution)
        x = x + convolved
        return self.norm(torch.add(x, self.feed_forward_after(x), alpha=0.5)), ConformerCache(
            attention, convolution
        )


class ConformerEncoder(BlockEncoder):
    """Conformer blocks, each ending in its own norm."""

    block = ConformerBlock
    final_norm = False
