"""What a step's gradients weigh on the network, by how they are sent: what hooks count as they go, told beforehand.

Shapes are those of a model's trained parameters. :class:`raysr.train.hooks.traffic.Traffic` says what payload and
wire are, and counts them in training.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raysr.train.hooks.blocks import BLOCK, CODECS

Shapes = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Payload:
    """Bytes of one rank and one step, the mean over a round's steps where not all are alike.

    Attributes:
        payload: handed to collectives.
        wire: sent by the rank for them.
        collectives: how many.
    """

    payload: float
    wire: float
    collectives: float


def whole(shapes: Shapes, ranks: int, width: int = 4, bucket: float = 25e6) -> Payload:
    """Return the payload of gradients averaged as they are, in numbers of ``width`` bytes, bucket by bucket."""
    sent = width * numbers(shapes)
    return _all_reduced(sent, ranks, math.ceil(4 * numbers(shapes) / bucket))


def low_rank(shapes: Shapes, ranks: int, rank: int, width: int = 4, min_ratio: float = 2.0) -> Payload:
    """Return that of :class:`raysr.train.hooks.powersgd.PowerSGD`: rank · (rows + columns) numbers of a matrix.

    Vectors, and matrices that would not be ``min_ratio`` times smaller, go whole.
    """
    sent = 0
    for shape in shapes:
        count = math.prod(shape)
        factors = rank * (shape[0] + count // shape[0]) if len(shape) > 1 else count
        sent += factors if len(shape) > 1 and count > min_ratio * factors else count
    return _all_reduced(width * sent, ranks, 2)


def in_blocks(shapes: Shapes, ranks: int, codec: str) -> Payload:
    """Return that of :class:`raysr.train.hooks.blocks.CompressedMean`: all blocks to their owners, a share back."""
    blocks = sum(math.ceil(math.prod(shape) / BLOCK) for shape in shapes)
    share = math.ceil(blocks / ranks) * CODECS[codec].row_bytes
    return Payload((ranks + 1) * share, 2 * (ranks - 1) * share, 2)


def now_and_then(shapes: Shapes, ranks: int, every: int, width: int = 4) -> Payload:
    """Return that of :class:`raysr.train.periodic.PeriodicAveraging`, spread over a round's steps."""
    return _all_reduced(width * numbers(shapes) / every, ranks, 1 / every)


def numbers(shapes: Shapes) -> int:
    """Return how many numbers there are."""
    return sum(math.prod(shape) for shape in shapes)


def like_a_transformer(size: float) -> list[tuple[int, ...]]:
    """Return shapes of about ``size`` bytes in float32: layers of width 512 with feed-forward blocks of 2048.

    For a model of which nothing else is known.
    """
    layer: list[tuple[int, ...]] = [(1536, 512), (512, 512), (2048, 512), (512, 2048)]
    layer += [(1536,), (512,), (2048,), (512,), (512,), (512,), (512,), (512,)]
    return layer * max(1, round(size / (4 * numbers(layer))))


def _all_reduced(size: float, ranks: int, collectives: float) -> Payload:
    return Payload(size, 2 * (ranks - 1) / ranks * size, collectives)
