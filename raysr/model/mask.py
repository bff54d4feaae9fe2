"""Which frame may attend to which: padding, and chunks with their context to the left and to the right."""

from typing import NamedTuple

import torch
from torch import Tensor


class Chunk(NamedTuple):
    """A chunk mask: frames see their own chunk of ``size`` encoder frames and whole chunks on either side.

    ``size`` < 0 is full context. ``left`` is how many chunks before the own one are seen, < 0 is all of them;
    ``right`` is how many after it, in every layer, so that the look-ahead of a stack grows with its depth.
    """

    size: int
    left: int
    right: int = 0


FULL_CONTEXT = Chunk(-1, -1)


def valid_frames(lengths: Tensor, frames: int) -> Tensor:
    """Return (B, frames) bool, True where a frame belongs to its utterance."""
    return torch.arange(frames, device=lengths.device) < lengths.unsqueeze(1)


def chunk_mask(frames: int, chunk: Chunk, device: torch.device | None = None) -> Tensor:
    """Return (frames, frames) bool; row i is True at the frames that frame i may attend to.

    Five frames, ``Chunk(size=2, left=1)`` and ``Chunk(size=2, left=0, right=1)``::

        1 1 . . .        1 1 1 1 .
        1 1 . . .        1 1 1 1 .
        1 1 1 1 .        . . 1 1 1
        1 1 1 1 .        . . 1 1 1
        . . 1 1 1        . . . . 1
    """
    if chunk.size < 0:
        return torch.ones(frames, frames, dtype=torch.bool, device=device)
    index = torch.arange(frames, device=device) // chunk.size
    distance = index.unsqueeze(1) - index  # (T, T), in chunks, positive to the left
    mask = distance >= -chunk.right
    return mask if chunk.left < 0 else mask & (distance <= chunk.left)


def attention_mask(valid: Tensor, chunk: Chunk) -> Tensor:
    """Combine padding (B, T) and chunks into (B, 1, T, T).

    Every frame may see itself, padded ones too: a row of softmax over nothing would be NaN.
    """
    frames = valid.shape[1]
    mask = valid.unsqueeze(1) & chunk_mask(frames, chunk, valid.device)  # (B, T, T)
    return (mask | torch.eye(frames, dtype=torch.bool, device=valid.device)).unsqueeze(1)
