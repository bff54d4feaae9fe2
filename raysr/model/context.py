"""The context an attention encoder is trained with, and the contexts it can be asked for."""

import torch

from raysr.errors import ConfigError
from raysr.model.config import AttentionConfig
from raysr.model.mask import FULL_CONTEXT, Chunk


def widest_context(attention: AttentionConfig) -> Chunk:
    """Return the widest context of training: full, or the mask of a model that knows only that one."""
    if attention.kind == "left":
        return Chunk(1, attention.left_chunks)
    if attention.kind in ("chunk", "flow"):
        return Chunk(attention.chunk, attention.left_chunks, _right(attention))
    return FULL_CONTEXT


def sample_context(attention: AttentionConfig, frames: int, generator: torch.Generator | None) -> Chunk:
    """Return the context of a training batch whose longest utterance has ``frames`` encoder frames.

    ``dynamic`` draws it: full with the configured share, else a chunk of U{min_chunk..max_chunk} frames that sees
    ``left_chunks``, or with ``dynamic_left`` U{0..(frames - 1) // chunk} chunks, to its left. It follows U2
    (Zhang et al. 2020, arXiv:2012.05481), with the share explicit instead of depending on the length of the
    batch. The generator is a CPU one; None draws from torch's global one.
    """
    if attention.kind != "dynamic":
        return widest_context(attention)
    if torch.rand((), generator=generator).item() < attention.full_context_share:
        return FULL_CONTEXT
    size = _uniform(attention.min_chunk, attention.max_chunk, generator)
    if not attention.dynamic_left:
        return Chunk(size, attention.left_chunks)
    return Chunk(size, _uniform(0, max(frames - 1, 0) // size, generator))


def chunk_context(attention: AttentionConfig, chunk_size: int, left_chunks: int, lookahead: int) -> Chunk:
    """Return the mask of chunks of ``chunk_size`` frames; raise :class:`ConfigError` where training forbids it.

    Only models of ``chunk`` and ``dynamic`` attention look ``lookahead`` frames beyond their chunk: ``left`` never
    sees what is to the right, and ``flow`` has chunks there.
    """
    if attention.kind == "full":
        raise ConfigError(
            "chunk_size: this model knows full context only; one that streams needs another "
            "encoder.attention.kind: left, chunk, flow or dynamic"
        )
    if attention.kind == "left" and chunk_size > 1:
        raise ConfigError(
            f"chunk_size: attention kind 'left' sees no frame to the right, so its chunks are of 1 frame "
            f"(got {chunk_size})"
        )
    ahead = lookahead if attention.kind in ("chunk", "dynamic") else 0
    return Chunk(chunk_size, left_chunks, _right(attention), ahead)


def _right(attention: AttentionConfig) -> int:
    return attention.right_chunks if attention.kind == "flow" else 0


def _uniform(low: int, high: int, generator: torch.Generator | None) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator).item())
