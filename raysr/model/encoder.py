"""The encoder: subsampling and a stack of blocks, at once under a mask or chunk by chunk with caches."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from raysr.model.attention import Rotary, rotary
from raysr.model.config import EncoderConfig
from raysr.model.mask import Chunk, attention_mask, valid_frames
from raysr.model.subsampling import Subsampling


class Block(Protocol):
    """One layer of an encoder; its cache is its own business."""

    def __call__(self, x: Tensor, mask: Tensor, valid: Tensor, positions: Rotary) -> Tensor: ...

    def initial_cache(self, batch: int) -> Any: ...

    def step(self, x: Tensor, cache: Any, positions: Rotary, keep: int) -> tuple[Tensor, Any]: ...


class BlockEncoder(nn.Module):
    """Subsampling, then blocks; subclasses say which block, and whether a norm follows the last one."""

    block: type[nn.Module]
    final_norm: bool

    def __init__(self, config: EncoderConfig, mel_bins: int) -> None:
        super().__init__()
        self.head_dim = config.dim // config.heads
        self.subsampling = Subsampling(
            mel_bins, config.dim, config.subsampling, config.subsampling_channels, config.dropout
        )
        self.blocks = nn.ModuleList(self.block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim) if self.final_norm else nn.Identity()

    def forward(self, features: Tensor, lengths: Tensor, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """Encode normalised features (B, T, F) into (B, max(T', 1), D) and lengths (B,), which may be 0."""
        lengths = self.subsampling.output_frames(lengths)
        x = self.subsampling(features)
        valid = valid_frames(lengths, x.shape[1])
        x = x.masked_fill(~valid.unsqueeze(-1), 0.0)
        mask = attention_mask(valid, chunk)
        positions = rotary(x.shape[1], self.head_dim, x.device)
        for block in self.blocks:
            x = block(x, mask, valid, positions)
        return self.norm(x), lengths

    def initial_caches(self, batch: int) -> tuple[Any, ...]:
        """Return the caches of a stream that has not begun, one per block."""
        return tuple(block.initial_cache(batch) for block in self._blocks())

    def step(
        self, features: Tensor, caches: Sequence[Any], seen: int, keep: int
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Encode the window of one chunk: features (B, (c - 1) x hop + window, F) -> (B, c, D), next caches.

        ``seen`` is how many frames the attention caches hold, ``keep`` how many they may hold (< 0: all).
        """
        x = self.subsampling(features)
        positions = rotary(seen + x.shape[1], self.head_dim, x.device)
        following = []
        for block, cache in zip(self._blocks(), caches, strict=True):
            x, cache = block.step(x, cache, positions, keep)
            following.append(cache)
        return self.norm(x), tuple(following)

    def _blocks(self) -> list[Block]:
        return list(self.blocks)  # type: ignore[arg-type]
