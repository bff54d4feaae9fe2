"""What every encoder offers, and the one that is a stack of attention blocks behind subsampling."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from raysr.errors import ConfigError
from raysr.model.attention import AttentionCache, Rotary, rotary
from raysr.model.config import EncoderConfig
from raysr.model.context import chunk_context, sample_context, widest_context
from raysr.model.mask import FULL_CONTEXT, Chunk, View, attention_mask, chunk_rows, valid_frames
from raysr.model.subsampling import Subsampling

Caches = tuple[Any, ...]
"""What an encoder remembers of streams: nested tuples of tensors, the first dimension of each is the slot.

Zeros are the caches of a stream that has not begun.
"""
Frames = TypeVar("Frames", int, Tensor)


class Encoder(nn.Module, ABC):
    """Features in, frames of ``dim`` out, at once for a batch; those that stream also do it chunk by chunk.

    An output frame needs ``window`` input frames, the next one those ``hop`` frames later.
    """

    hop: int
    window: int
    streams: bool

    @classmethod
    def check(cls, config: EncoderConfig) -> None:
        """Raise ValueError for a configuration that this encoder cannot be built from."""

    def output_frames(self, frames: Frames) -> Frames:
        """Return T' of T input frames, a number or a tensor: 0 when T < window, else (T - window) // hop + 1."""
        whole = (frames - self.window) // self.hop + 1
        return max(whole, 0) if isinstance(whole, int) else whole.clamp(min=0)

    @abstractmethod
    def forward(self, features: Tensor, lengths: Tensor, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """Encode normalised features (B, T, F) into (B, max(T', 1), D) and lengths (B,), which may be 0."""

    def context(self, chunk_size: int, left_chunks: int, lookahead: int) -> Chunk:
        """Return the context of chunks of ``chunk_size`` frames; raise :class:`ConfigError` if there is none.

        ``chunk_size`` < 0 is the widest context that the encoder was trained with. Those that could not make
        use of frames ahead of the chunk have none.
        """
        if chunk_size < 0:
            return FULL_CONTEXT
        if not self.streams:
            raise ConfigError(
                "chunk_size: this encoder reads whole utterances; 'lstm' is the one that streams"
            )
        return Chunk(chunk_size, left_chunks)

    def training_context(self, frames: int, generator: torch.Generator | None) -> Chunk:
        """Return the context of a training batch of (B, ``frames``) features."""
        return FULL_CONTEXT

    def delay(self, chunk: Chunk) -> int:
        """Return how many encoder frames after a chunk :meth:`step` has read when the chunk's own come out."""
        return 0

    def initial_caches(self, slots: int, chunk: Chunk) -> Caches:
        """Return the caches of ``slots`` streams that have not begun; ``chunk.left`` < 0 has no room yet.

        This and :meth:`step` are for encoders with ``streams`` alone: :meth:`context` refuses chunks of the others.
        """
        raise NotImplementedError

    def with_left(self, caches: Caches, frames: int) -> Caches:
        """Return the caches with room for ``frames`` encoder frames to the left of a chunk."""
        return caches

    def step(
        self, features: Tensor, frames: Tensor, caches: Caches, ahead: int = 0
    ) -> tuple[Tensor, Tensor, Caches]:
        """Encode a chunk of c frames, and of ``ahead`` frames after it that it may see, of each of S streams.

        Args:
            features: normalised, (S, (c + ahead - 1) x hop + window, F).
            frames: (S,), how many of the c + ahead frames belong to the stream: all, but at its end fewer, or
                none while what is inside the encoder is flushed out. What follows them in ``features`` is finite.
            caches: of the S streams.
            ahead: that of the context.

        Returns:
            Encoder frames (S, c, D), which are those of ``delay`` frames ago; (S, c) bool, which of them
            are frames of their stream; the next caches, of the same shapes.
        """
        raise NotImplementedError


class BlockCache(Protocol):
    """What a block remembers of streams; attention is a part of it."""

    @property
    def attention(self) -> AttentionCache: ...

    def _replace(self, *, attention: AttentionCache) -> "BlockCache": ...


class Block(Protocol):
    """One layer of an encoder; its cache is its own business but for the attention's."""

    def __call__(self, x: Tensor, view: View, positions: Rotary) -> Tensor: ...

    def initial_cache(self, slots: int, chunk: Chunk) -> Any: ...

    def step(
        self, x: Tensor, valid: Tensor, cache: Any, positions: Rotary, ahead: int
    ) -> tuple[Tensor, Tensor, BlockCache]: ...


class BlockEncoder(Encoder):
    """Subsampling, then blocks; subclasses say which block, and whether a norm follows the last one."""

    block: ClassVar[type[nn.Module]]
    final_norm: ClassVar[bool]

    def __init__(self, config: EncoderConfig, mel_bins: int) -> None:
        super().__init__()
        self.attention = config.attention
        self.head_dim = config.dim // config.heads
        self.subsampling = Subsampling(
            mel_bins, config.dim, config.subsampling, config.subsampling_channels, config.dropout
        )
        self.hop, self.window = self.subsampling.hop, self.subsampling.window
        self.streams = config.attention.kind != "full"
        self.blocks = nn.ModuleList(self.block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim) if self.final_norm else nn.Identity()

    @classmethod
    def check(cls, config: EncoderConfig) -> None:
        if config.dim % (2 * config.heads):
            raise ValueError(f"dim ({config.dim}) must be a multiple of 2 x heads ({2 * config.heads})")

    def forward(self, features: Tensor, lengths: Tensor, chunk: Chunk) -> tuple[Tensor, Tensor]:
        lengths = self.output_frames(lengths)
        x = self.subsampling(features)
        frames = x.shape[1]
        rows = chunk_rows(frames, chunk)  # (R,)
        positions = rotary(rows, self.head_dim, x.device)
        rows = rows.to(x.device)
        valid = rows < lengths.unsqueeze(1)  # (B, R)
        if chunk.ahead:
            x = x[:, rows.clamp(max=frames - 1)]
        x = x.masked_fill(~valid.unsqueeze(-1), 0.0)
        view = View(valid, attention_mask(valid, chunk), chunk)
        for block in self.blocks:
            x = block(x, view, positions)
        if chunk.ahead:
            x = x.unflatten(1, (-1, chunk.width))[:, :, : chunk.size].flatten(1, 2)[:, :frames]
        return self.norm(x), lengths

    def context(self, chunk_size: int, left_chunks: int, lookahead: int) -> Chunk:
        if chunk_size < 0:
            return widest_context(self.attention)
        return chunk_context(self.attention, chunk_size, left_chunks, lookahead)

    def training_context(self, frames: int, generator: torch.Generator | None) -> Chunk:
        return sample_context(self.attention, self.output_frames(frames), generator)

    def delay(self, chunk: Chunk) -> int:
        return len(self.blocks) * chunk.right * chunk.size

    def initial_caches(self, slots: int, chunk: Chunk) -> Caches:
        return tuple(block.initial_cache(slots, chunk) for block in self._blocks())

    def with_left(self, caches: Caches, frames: int) -> Caches:
        return tuple(cache._replace(attention=cache.attention.with_left(frames)) for cache in caches)

    def step(
        self, features: Tensor, frames: Tensor, caches: Caches, ahead: int = 0
    ) -> tuple[Tensor, Tensor, Caches]:
        x = self.subsampling(features)  # (S, c + ahead, D)
        valid = valid_frames(frames, x.shape[1])
        x = x.masked_fill(~valid.unsqueeze(-1), 0.0)
        keys = caches[0].attention.frames + x.shape[1]
        positions = rotary(torch.arange(keys), self.head_dim, x.device)
        following = []
        for block, cache in zip(self._blocks(), caches, strict=True):
            x, valid, cache = block.step(x, valid, cache, positions, ahead)
            following.append(cache)
        size = x.shape[1] - ahead
        return self.norm(x[:, :size]), valid[:, :size], tuple(following)

    def _blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))
