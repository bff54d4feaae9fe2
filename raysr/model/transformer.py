"""The Transformer encoder, pre-norm (Xiong et al. 2020, arXiv:2002.04745)."""

from typing import NamedTuple

from torch import Tensor, nn

from raysr.model.attention import AttentionCache, Rotary, SelfAttention, delay
from raysr.model.config import EncoderConfig
from raysr.model.encoder import BlockEncoder
from raysr.model.layers import FeedForward
from raysr.model.mask import Chunk, View


class TransformerCache(NamedTuple):
    """What a block remembers of S streams."""

    attention: AttentionCache
    waiting: Tensor
    """Frames (S, right x c, D) that still wait for their chunks to the right."""


class TransformerBlock(nn.Module):
    """Self-attention and feed-forward, each a pre-norm residual."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.dim)
        self.attention = SelfAttention(config.dim, config.heads)
        self.feed_forward = FeedForward(config.dim, config.feed_forward, config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, view: View, positions: Rotary) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), view.mask, positions))
        return x + self.feed_forward(x)

    def initial_cache(self, slots: int, chunk: Chunk) -> TransformerCache:
        weight = self.attention_norm.weight
        waiting = weight.new_zeros(slots, chunk.right * chunk.size, len(weight))
        return TransformerCache(self.attention.initial_cache(slots, chunk), waiting)

    def step(
        self, x: Tensor, valid: Tensor, cache: TransformerCache, positions: Rotary, ahead: int
    ) -> tuple[Tensor, Tensor, TransformerCache]:
        attended, valid, attention = self.attention.step(
            self.attention_norm(x), valid, cache.attention, positions, ahead
        )
        x, waiting = delay(cache.waiting, x)
        x = x + self.dropout(attended)
        return x + self.feed_forward(x), valid, TransformerCache(attention, waiting)


class TransformerEncoder(BlockEncoder):
    """Transformer blocks and the norm that pre-norm residuals need at the end."""

    block = TransformerBlock
    final_norm = True
