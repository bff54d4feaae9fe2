"""Which frame may attend to which: padding, and chunks with their context to the left and to the right."""

from typing import NamedTuple

import torch
from torch import Tensor


class Chunk(NamedTuple):
    """A chunk mask: frames see their own chunk of ``size`` encoder frames and whole chunks on either side.

    ``size`` < 0 is full context. ``left`` is how many chunks before the own one are seen, < 0 is all of them;
    ``right`` is how many after it, in every layer, so that the look-ahead of a stack grows with its depth.
    ``ahead`` is how many frames after the chunk are computed with it, for it alone: the next chunk computes them
    anew, so that the look-ahead is the same at any depth (Emformer's right context, Shi et al. 2021,
    arXiv:2010.10759). There is no ``ahead`` where there is a ``right``.
    """

    size: int
    left: int
    right: int = 0
    ahead: int = 0

    @property
    def width(self) -> int:
        """How many frames are computed together."""
        return self.size + self.ahead


FULL_CONTEXT = Chunk(-1, -1)


class View(NamedTuple):
    """What the layers see of a batch of whole utterances, in R rows: its frames as :func:`chunk_rows` has them."""

    valid: Tensor
    """Which rows are frames of their utterance, (B, R)."""
    mask: Tensor
    """Which rows each row may attend to, (B, 1, R, R)."""
    chunk: Chunk


def valid_frames(lengths: Tensor, frames: int) -> Tensor:
    """Return (B, frames) bool, True where a frame belongs to its utterance."""
    return torch.arange(frames, device=lengths.device) < lengths.unsqueeze(1)


def chunk_rows(frames: int, chunk: Chunk, device: torch.device | None = None) -> Tensor:
    """Return (R,) the frames in the order that they are computed in: chunk after chunk, each with those ahead.

    Without any ahead they are 0, 1, … ``frames`` - 1. Five frames, ``Chunk(size=2, left=1, ahead=1)``:
    0 1 2, 2 3 4, 4 5 6, of which 5 and 6 are none.
    """
    if chunk.ahead == 0:
        return torch.arange(frames, device=device)
    first = torch.arange(0, frames, chunk.size, device=device)
    return (first.unsqueeze(1) + torch.arange(chunk.width, device=device)).flatten()


def chunk_mask(rows: int, chunk: Chunk, device: torch.device | None = None) -> Tensor:
    """Return (R, R) bool; row i is True at the rows, those of :func:`chunk_rows`, that row i may attend to.

    Five frames, ``Chunk(size=2, left=1)`` and ``Chunk(size=2, left=0, right=1)``, and the first six rows of
    ``Chunk(size=2, left=1, ahead=1)``::

        1 1 . . .        1 1 1 1 .        1 1 1 . . .
        1 1 . . .        1 1 1 1 .        1 1 1 . . .
        1 1 1 1 .        . . 1 1 1        1 1 1 . . .
        1 1 1 1 .        . . 1 1 1        1 1 . 1 1 1
        . . 1 1 1        . . . . 1        1 1 . 1 1 1
                                          1 1 . 1 1 1
    """
    if chunk.size < 0:
        return torch.ones(rows, rows, dtype=torch.bool, device=device)
    index = torch.arange(rows, device=device)
    number = index // chunk.width
    distance = number.unsqueeze(1) - number  # (R, R), in chunks, positive to the left
    mask = (distance >= -chunk.right) & ((distance == 0) | (index % chunk.width < chunk.size))
    return mask if chunk.left < 0 else mask & (distance <= chunk.left)


def attention_mask(valid: Tensor, chunk: Chunk) -> Tensor:
    """Combine padding (B, R) and chunks into (B, 1, R, R).

    Every row may see itself, padded ones too: a softmax over nothing would be NaN.
    """
    rows = valid.shape[1]
    mask = valid.unsqueeze(1) & chunk_mask(rows, chunk, valid.device)  # (B, R, R)
    return (mask | torch.eye(rows, dtype=torch.bool, device=valid.device)).unsqueeze(1)
