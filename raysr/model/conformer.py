"""The Conformer encoder (Gulati et al. 2020, arXiv:2005.08100), whose convolution streams too."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysr.model.attention import AttentionCache, Rotary, SelfAttention, delay
from raysr.model.config import EncoderConfig
from raysr.model.encoder import BlockEncoder
from raysr.model.layers import FeedForward
from raysr.model.mask import Chunk, View


class ConvolutionModule(nn.Module):
    """Pre-norm gated depthwise convolution: (B, T, dim) -> (B, T, dim), without the residual.

    It reads as far to the right as to the left, but not beyond the chunk: there it meets zeros, as at the end of
    the utterance (dynamic chunk convolution, Li et al. 2023, arXiv:2304.09325). ``causal``, it reads to the left
    alone. LayerNorm instead of BatchNorm: its statistics are the same in a chunk and in the whole utterance.
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

    def forward(self, x: Tensor, valid: Tensor, chunk: Chunk) -> Tensor:
        """Rows that are not ``valid`` (B, R) count as zeros, like what is around the utterance."""
        gated = self._gated(x, valid)
        if self.right == 0 or chunk.size < 0:
            return self._convolve(F.pad(gated, (0, 0, self.left, self.right)))
        rows = gated.shape[1]
        padded = F.pad(gated, (0, 0, 0, -rows % chunk.width))
        chunks = padded.unflatten(1, (-1, chunk.width))  # (B, n, width, D)
        past = F.pad(chunks[:, :, : chunk.size].flatten(1, 2), (0, 0, self.left, 0))
        past = past.unfold(1, self.left, chunk.size)[:, : chunks.shape[1]].transpose(2, 3)  # (B, n, left, D)
        read = F.pad(torch.cat((past, chunks), dim=2).flatten(0, 1), (0, 0, 0, self.right))
        return self._convolve(read).unflatten(0, (len(x), -1)).flatten(1, 2)[:, :rows]

    def initial_cache(self, slots: int) -> Tensor:
        """Return the input of the convolution before a stream begins, zeros (S, left, dim)."""
        return self.output.weight.new_zeros(slots, self.left, self.output.in_features)

    def step(self, x: Tensor, valid: Tensor, cache: Tensor, ahead: int) -> tuple[Tensor, Tensor]:
        """Convolve one chunk (S, c + ahead, dim) after the ``left`` frames of convolution input in ``cache``."""
        gated = torch.cat((cache, self._gated(x, valid)), dim=1)
        following = gated[:, x.shape[1] - ahead : gated.shape[1] - ahead]
        return self._convolve(F.pad(gated, (0, 0, 0, self.right))), following

    def _gated(self, x: Tensor, valid: Tensor) -> Tensor:
        return F.glu(self.gate(self.norm(x)), dim=-1).masked_fill(~valid.unsqueeze(-1), 0.0)

    def _convolve(self, gated: Tensor) -> Tensor:
        x = self.depthwise(gated.transpose(1, 2)).transpose(1, 2)
        return self.dropout(self.output(F.silu(self.depthwise_norm(x))))


class ConformerCache(NamedTuple):
    """What a block remembers of S streams."""

    attention: AttentionCache
    waiting: Tensor
    """Frames (S, right x c, D) that still wait for their chunks to the right."""
    convolution: Tensor
    """The last frames (S, left, D) of the convolution's input."""


class ConformerBlock(nn.Module):
    """Half feed-forward, self-attention, convolution, half feed-forward, norm."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.feed_forward_before = FeedForward(config.dim, config.feed_forward, config.dropout)
        self.attention_norm = nn.LayerNorm(config.dim)
        self.attention = SelfAttention(config.dim, config.heads)
        causal = config.attention.kind == "left"
        self.convolution = ConvolutionModule(config.dim, config.kernel, causal, config.dropout)
        self.feed_forward_after = FeedForward(config.dim, config.feed_forward, config.dropout)
        self.norm = nn.LayerNorm(config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, view: View, positions: Rotary) -> Tensor:
        x = torch.add(x, self.feed_forward_before(x), alpha=0.5)
        x = x + self.dropout(self.attention(self.attention_norm(x), view.mask, positions))
        x = x + self.convolution(x, view.valid, view.chunk)
        return self.norm(torch.add(x, self.feed_forward_after(x), alpha=0.5))

    def initial_cache(self, slots: int, chunk: Chunk) -> ConformerCache:
        attention = self.attention.initial_cache(slots, chunk)
        waiting = self.norm.weight.new_zeros(slots, chunk.right * chunk.size, len(self.norm.weight))
        return ConformerCache(attention, waiting, self.convolution.initial_cache(slots))

    def step(
        self, x: Tensor, valid: Tensor, cache: ConformerCache, positions: Rotary, ahead: int
    ) -> tuple[Tensor, Tensor, ConformerCache]:
        x = torch.add(x, self.feed_forward_before(x), alpha=0.5)
        attended, valid, attention = self.attention.step(
            self.attention_norm(x), valid, cache.attention, positions, ahead
        )
        x, waiting = delay(cache.waiting, x)
        x = x + self.dropout(attended)
        convolved, convolution = self.convolution.step(x, valid, cache.convolution, ahead)
        x = x + convolved
        x = self.norm(torch.add(x, self.feed_forward_after(x), alpha=0.5))
        return x, valid, ConformerCache(attention, waiting, convolution)


class ConformerEncoder(BlockEncoder):
    """Conformer blocks, each ending in its own norm."""

    block = ConformerBlock
    final_norm = False

    @classmethod
    def check(cls, config: EncoderConfig) -> None:
        super().check(config)
        if config.attention.kind != "left" and config.kernel % 2 == 0:
            raise ValueError(f"kernel ({config.kernel}) must be odd unless attention.kind is left")
