"""The Transformer encoder, pre-norm (Xiong et al. 2020, arXiv:2002.04745)."""

from torch import Tensor, nn

from raysr.model.attention import KeyValueCache, Rotary, SelfAttention
from raysr.model.config import EncoderConfig
from raysr.model.encoder import BlockEncoder
from raysr.model.layers import FeedForward


class TransformerBlock(nn.Module):
    """Self-attention and feed-forward, each a pre-norm residual."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.dim)
        self.attention = SelfAttention(config.dim, config.heads)
        self.feed_forward = FeedForward(config.dim, config.feed_forward, config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, valid: Tensor, positions: Rotary) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), mask, positions))
        return x + self.feed_forward(x)

    def initial_cache(self, batch: int) -> KeyValueCache:
        return self.attention.initial_cache(batch)

    def step(
        self, x: Tensor, cache: KeyValueCache, positions: Rotary, keep: int
    ) -> tuple[Tensor, KeyValueCache]:
        attended, cache = self.attention.step(self.attention_norm(x), cache, positions, keep)
        x = x + self.dropout(attended)
        return x + self.feed_forward(x), cache


class TransformerEncoder(BlockEncoder):
    """Transformer blocks and the norm that pre-norm residuals need at the end."""

    block = TransformerBlock
    final_norm = True
