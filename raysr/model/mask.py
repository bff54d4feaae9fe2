"""Which frame may attend to which: padding, chunks, and the sampling of chunks in training."""

from typing import NamedTuple

import torch
from torch import Tensor


class Chunk(NamedTuple):
    """A chunk mask: frames see their own chunk of ``size`` encoder frames and ``left`` chunks before it.

    ``size`` < 0 is full context; ``left`` < 0 is every chunk to the left.
    """

    size: int
    left: int


FULL_CONTEXT = Chunk(-1, -1)


def valid_frames(lengths: Tensor, frames: int) -> Tensor:
    """Return (B, frames) bool, True where a frame belongs to its utterance."""
    return torch.arange(frames, device=lengths.device) < lengths.unsqueeze(1)


def chunk_mask(frames: int, chunk: Chunk, device: torch.device | None = None) -> Tensor:
    """Return (frames, frames) bool; row i is True at the frames that frame i may attend to.

    Five frames, ``Chunk(size=2, left=1)``::

        1 1 . . .
        1 1 . . .
        1 1 1 1 .
        1 1 1 1 .
        . . 1 1 1
    """
    if chunk.size < 0:
        return torch.ones(frames, frames, dtype=torch.bool, device=device)
    index = torch.arange(frames, device=device) // chunk.size
    distance = index.unsqueeze(1) - index  # (T, T), in chunks, positive to the left
    mask = distance >= 0
    return mask if chunk.left < 0 else mask & (distance <= chunk.left)


def attention_mask(valid: Tensor, chunk: Chunk) -> Tensor:
    """Combine padding (B, T) and chunks into (B, 1, T, T).

    Every frame may see itself, padded ones too: a row of softmax over nothing would be NaN.
    """
    frames = valid.shape[1]
    mask = valid.unsqueeze(1) & chunk_mask(frames, chunk, valid.device)  # (B, T, T)
    return (mask | torch.eye(frames, dtype=torch.bool, device=valid.device)).unsqueeze(1)


def sample_chunk(
    max_chunk: int, left_chunks: int, full_context_share: float, generator: torch.Generator | None
) -> Chunk:
    """Draw a training batch's context: full with the given share, else a chunk of U{1..max_chunk} frames.

    Follows U2 (Zhang et al. 2020, arXiv:2012.05481), with the share explicit instead of depending on the
    length of the batch. The generator is a CPU one; None draws from torch's global one.
    """
    if torch.rand((), generator=generator).item() < full_context_share:
        return FULL_CONTEXT
    size = int(torch.randint(1, max_chunk + 1, (), generator=generator).item())
    return Chunk(size, left_chunks)
