"""Multi-head attention: self-attention with rotary positions and a cache, and cross-attention."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysr.model.mask import Chunk


class Rotary(NamedTuple):
    """Rotation of T positions, each (T, 1, head_dim / 2)."""

    cos: Tensor
    sin: Tensor


def rotary(positions: Tensor, head_dim: int, device: torch.device) -> Rotary:
    """Return rotary embeddings (Su et al. 2021, arXiv:2104.09864) of ``positions`` (T,), which are on the CPU.

    Attention then depends on the distance of two frames only, so a stream may count from any origin. The
    angles are computed in float64: in float32 the angle of frame 10,000 is wrong by 1e-3.
    """
    half = head_dim // 2
    inverse_frequency = 10000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
    angles = torch.outer(positions.double(), inverse_frequency).unsqueeze(1)
    return Rotary(angles.cos().float().to(device), angles.sin().float().to(device))


def rotate(x: Tensor, positions: Rotary) -> Tensor:
    """Rotate (B, T, H, head_dim) by the last T of ``positions``."""
    cos, sin = positions.cos[-x.shape[1] :], positions.sin[-x.shape[1] :]
    wide = x.to(cos.dtype)
    first, second = wide.chunk(2, dim=-1)
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)
    rotated = wide.clone()  # the same in half the passes over memory
    begin, end = rotated.chunk(2, dim=-1)
    begin.mul_(cos).addcmul_(second, sin, value=-1)
    end.mul_(cos).addcmul_(first, sin)
    return rotated.to(x.dtype)


class AttentionCache(NamedTuple):
    """What self-attention remembers of S streams that come in chunks of c frames."""

    query: Tensor
    """Of the frames that still wait for their chunks to the right, (S, right x c, H, head_dim)."""
    key: Tensor
    """Before rotation, (S, (left + right) x c, H, head_dim)."""
    value: Tensor
    valid: Tensor
    """Which keys are frames of their stream, (S, (left + right) x c)."""

    @property
    def frames(self) -> int:
        """How many keys there is room for."""
        return self.key.shape[1]

    def with_left(self, frames: int) -> "AttentionCache":
        """Return a cache with room for ``frames`` to the left of a chunk: the oldest are cut, or zeros added."""
        more = frames + self.query.shape[1] - self.frames
        return self._replace(
            key=F.pad(self.key, (0, 0, 0, 0, more, 0)),
            value=F.pad(self.value, (0, 0, 0, 0, more, 0)),
            valid=F.pad(self.valid, (more, 0)),
        )


def delay(waiting: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Push (S, c, …) into a queue (S, w, …); return the first c of what is in it, and the rest."""
    if waiting.shape[1] == 0:
        return x, waiting
    queue = torch.cat((waiting, x), dim=1)
    return queue[:, : x.shape[1]], queue[:, x.shape[1] :]


class SelfAttention(nn.Module):
    """Self-attention over (B, T, dim); positions are rotary, or none where the caller adds its own."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_dim = dim // heads
        self.projection = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None, positions: Rotary | None = None) -> Tensor:
        """Attend where ``mask`` (broadcast to B, H, T, T) is True; None is causal."""
        query, key, value = self._project(x)
        if positions is not None:
            query, key = rotate(query, positions), rotate(key, positions)
        return self.output(_attend(query, key, value, mask, causal=mask is None))

    def initial_cache(self, slots: int, chunk: Chunk) -> AttentionCache:
        """Return the cache of ``slots`` streams that have not begun."""
        right = chunk.right * chunk.size
        frames = right + max(chunk.left, 0) * chunk.size
        zeros = self.projection.weight.new_zeros
        return AttentionCache(
            query=zeros(slots, right, self.heads, self.head_dim),
            key=zeros(slots, frames, self.heads, self.head_dim),
            value=zeros(slots, frames, self.heads, self.head_dim),
            valid=zeros(slots, frames, dtype=torch.bool),
        )

    def step(
        self, x: Tensor, valid: Tensor, cache: AttentionCache, positions: Rotary, ahead: int
    ) -> tuple[Tensor, Tensor, AttentionCache]:
        """Read a chunk (S, c + ahead, D), of whose frames those in ``valid`` (S, c + ahead) count.

        Return the attention of as many frames from the chunk before it by as many chunks as there are to the
        right, which of those frames count, and the next cache, which the frames ahead do not enter.
        ``positions`` covers the cache and the chunk.
        """
        query, key, value = self._project(x)
        query, waiting = delay(cache.query, query)
        key = torch.cat((cache.key, key), dim=1)  # (S, K, H, head_dim)
        value = torch.cat((cache.value, value), dim=1)
        seen = torch.cat((cache.valid, valid), dim=1)  # (S, K)
        size, end = x.shape[1], key.shape[1] - waiting.shape[1]
        kept = slice(size - ahead, key.shape[1] - ahead)
        # Where no key counts all are seen: a softmax over nothing would be NaN.
        mask = (seen | ~seen.any(dim=1, keepdim=True))[:, None, None]  # (S, 1, 1, K)
        query = rotate(query, Rotary(positions.cos[:end], positions.sin[:end]))
        attended = self.output(_attend(query, rotate(key, positions), value, mask))
        following = AttentionCache(waiting, key[:, kept], value[:, kept], seen[:, kept])
        return attended, seen[:, end - size : end], following

    def extend(self, x: Tensor, past: "KeyValue") -> tuple[Tensor, "KeyValue"]:
        """Attend from one more step (B, 1, dim) to the past and to itself: the causal forward, step by step."""
        query, key, value = self._project(x)
        past = KeyValue(torch.cat((past.key, key), dim=1), torch.cat((past.value, value), dim=1))
        return self.output(_attend(query, past.key, past.value)), past

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads = self.projection(x).unflatten(-1, (3, self.heads, self.head_dim))  # (B, T, 3, H, head_dim)
        query, key, value = heads.unbind(dim=2)
        return query, key, value


class KeyValue(NamedTuple):
    """Keys and values, each (B, T, H, head_dim)."""

    key: Tensor
    value: Tensor


class CrossAttention(nn.Module):
    """Attention from (B, U, dim) to a memory (B, T, dim)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Attend where ``mask`` (B, 1, 1, T) is True; every row needs at least one True."""
        return self.attend(x, self.project(memory), mask)

    def project(self, memory: Tensor) -> KeyValue:
        """Return what :meth:`attend` needs of a memory, so that a search computes it once."""
        key, value = self.key_value(memory).unflatten(-1, (2, self.heads, -1)).unbind(dim=2)
        return KeyValue(key, value)

    def attend(self, x: Tensor, memory: KeyValue, mask: Tensor) -> Tensor:
        """Return :meth:`forward` of a projected memory."""
        query = self.query(x).unflatten(-1, (self.heads, -1))  # (B, U, H, head_dim)
        return self.output(_attend(query, memory.key, memory.value, mask))


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """(B, T, H, head_dim) tensors -> (B, T, dim)."""
    attended = F.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=mask,
        is_causal=causal,
    )  # (B, H, T, head_dim)
    return attended.transpose(1, 2).flatten(2)
