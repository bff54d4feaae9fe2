"""Gradients in 8 bits or 1 bit a number, with a scale for every block of them, and their mean over all ranks.

A sum of compressed numbers does not fit their type, so that the mean goes in two collectives: every rank sends each
other one the part that is its to average, and then what it made of its own part, compressed again. What either
compression loses joins what the same rank compresses next: error feedback (Seide et al. 2014; Karimireddy et al. 2019,
arXiv 1901.09847), at both places as in 1-bit Adam (Tang et al. 2021, arXiv 2102.02888, "compressed all-reduce").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from raysr.train.hooks.traffic import Traffic

BLOCK = 256  # numbers that share a scale


class Codec(Protocol):
    """How rows of ``BLOCK`` numbers become bytes and numbers again."""

    row_bytes: int

    def encode(self, rows: Tensor, filled: Tensor) -> Tensor:
        """Return (N, row_bytes) bytes of float32 rows (N, BLOCK), of which ``filled`` says what is no padding."""
        ...

    def decode(self, coded: Tensor) -> Tensor:
        """Return float32 rows (N, BLOCK); NaN where a row was not finite."""
        ...


class EightBit:
    """A sign and 127 equal steps up to the block's largest number."""

    row_bytes = BLOCK + 4

    def encode(self, rows: Tensor, filled: Tensor) -> Tensor:
        largest = rows.abs().amax(1, keepdim=True)
        steps = torch.where(largest > 0, 127 / largest, 0)
        levels = (rows * steps).round_().nan_to_num_(0).to(torch.int8)
        return torch.cat([largest.view(torch.uint8), levels.view(torch.uint8)], 1)

    def decode(self, coded: Tensor) -> Tensor:
        largest = coded[:, :4].contiguous().view(torch.float32)
        return coded[:, 4:].contiguous().view(torch.int8).float() * (largest / 127)


class OneBit:
    """A sign; the size of all is the mean size of the block's."""

    row_bytes = BLOCK // 8 + 4

    def encode(self, rows: Tensor, filled: Tensor) -> Tensor:
        size = rows.abs().sum(1, keepdim=True) / filled.sum(1, keepdim=True).clamp(min=1)
        return torch.cat([size.view(torch.uint8), _packed(rows >= 0)], 1)

    def decode(self, coded: Tensor) -> Tensor:
        size = coded[:, :4].contiguous().view(torch.float32)
        return torch.where(_unpacked(coded[:, 4:].contiguous()), size, -size)


CODECS: Mapping[str, type[Codec]] = {"8bit": EightBit, "1bit": OneBit}


@dataclass
class CompressedMean:
    """The mean over all ranks of vectors that come again and again, each time with the errors of the last.

    Vectors begin blocks of their own, lest numbers of different sizes share a scale; a block's end is filled with
    zeros, which are left out of means and errors.

    Attributes:
        codec: how blocks are sent.
        traffic: counts what is sent.
        error: of this rank's vectors (N, BLOCK), None before the first call.
        own_error: of the means that this rank makes.
    """

    codec: Codec
    traffic: Traffic = field(default_factory=Traffic)
    error: Tensor | None = None
    own_error: Tensor | None = None

    def __call__(self, vectors: Sequence[Tensor]) -> list[Tensor] | None:
        """Return the mean of each vector over all ranks, the same bits on all; None where one is not finite.

        Then the errors stay as they are.
        """
        ranks = dist.get_world_size()
        rows, filled = _rows(vectors, ranks)
        share = len(rows) // ranks
        own = slice(dist.get_rank() * share, (dist.get_rank() + 1) * share)
        rows = rows if self.error is None else rows + self.error
        coded = self.codec.encode(rows, filled)
        received = torch.empty_like(coded)
        self.traffic.all_to_all(coded)
        dist.all_to_all_single(received, coded)
        mean = self.codec.decode(received).view(ranks, share, BLOCK).mean(0) * filled[own]
        mean = mean if self.own_error is None else mean + self.own_error
        coded_mean = self.codec.encode(mean, filled[own])
        gathered = torch.empty_like(coded)
        self.traffic.all_gather(coded_mean)
        dist.all_gather_into_tensor(gathered, coded_mean)
        found = self.codec.decode(gathered)
        if not bool(found.isfinite().all()):
            return None
        self.error = (rows - self.codec.decode(coded)) * filled
        self.own_error = (mean - found[own]) * filled[own]
        return _vectors(found, vectors)

    def state_dict(self) -> dict[str, Any]:
        """Return what this rank needs to go on exactly."""
        return {"error": self.error, "own_error": self.own_error}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where this rank's :meth:`state_dict` was taken."""
        self.error, self.own_error = state["error"], state["own_error"]


def _rows(vectors: Sequence[Tensor], ranks: int) -> tuple[Tensor, Tensor]:
    """Return vectors as rows of blocks (N, BLOCK), N a multiple of ``ranks``, and which numbers are theirs."""
    counts = [-(-vector.numel() // BLOCK) for vector in vectors]
    total = -(-sum(counts) // ranks) * ranks
    rows = vectors[0].new_zeros(total * BLOCK, dtype=torch.float32)
    filled = torch.zeros(total * BLOCK, dtype=torch.bool, device=rows.device)
    first = 0
    for vector, count in zip(vectors, counts, strict=True):
        rows[first : first + vector.numel()] = vector.flatten()
        filled[first : first + vector.numel()] = True
        first += count * BLOCK
    return rows.view(-1, BLOCK), filled.view(-1, BLOCK)


def _vectors(rows: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    flat, first, found = rows.flatten(), 0, []
    for vector in like:
        found.append(flat[first : first + vector.numel()].view_as(vector))
        first += -(-vector.numel() // BLOCK) * BLOCK
    return found


def _packed(bits: Tensor) -> Tensor:
    """Return (N, B / 8) bytes of booleans (N, B); on a CPU by numpy, which has a loop for it where torch has none."""
    if bits.device.type == "cpu":
        return torch.from_numpy(np.packbits(bits.numpy(), axis=1, bitorder="little"))
    places = torch.arange(8, device=bits.device, dtype=torch.uint8)
    return (bits.view(len(bits), -1, 8).to(torch.uint8) << places).sum(-1, dtype=torch.uint8)


def _unpacked(packed: Tensor) -> Tensor:
    if packed.device.type == "cpu":
        unpacked = np.unpackbits(packed.numpy(), axis=1, bitorder="little")
        return torch.from_numpy(unpacked).view(torch.bool)
    places = torch.arange(8, device=packed.device, dtype=torch.uint8)
    return (packed[:, :, None] >> places & 1).bool().flatten(1)
