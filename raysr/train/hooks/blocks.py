"""Gradients in 8 bits or 1 bit a number, with a scale for every block of them, and their mean over all ranks.

A sum of compressed numbers does not fit their type, so that the mean goes in two collectives: every rank sends each
other one the part that is its to average, and then what it made of its own part, compressed again. What either
compression loses joins what the same rank compresses next: error feedback (Seide et al. 2014; Karimireddy et al. 2019,
arXiv 1901.09847), at both places as in 1-bit Adam (Tang et al. 2021, arXiv 2102.02888, "compressed all-reduce").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from raysr.train.hooks import bits
from raysr.train.hooks.traffic import Traffic

BLOCK = 256  # numbers that share a scale


class Codec(Protocol):
    """How rows of ``BLOCK`` numbers become bytes and numbers again."""

    row_bytes: int

    def encode(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Return (N, row_bytes) bytes of float32 rows (N, BLOCK), whose first ``counts`` (N,) are no padding.

        The first four of each row's are a float32 that is finite where all of the row's numbers are.
        """
        ...

    def decode(self, coded: Tensor, out: Tensor | None = None) -> Tensor:
        """Return float32 rows (N, BLOCK), in ``out`` if there is any.

        None of a row's numbers is finite where one was not.
        """
        ...

    def subtract(self, rows: Tensor, coded: Tensor) -> None:
        """Take from rows (N, BLOCK), in place, what these bytes say; padding becomes anything."""
        ...

    def mean(self, coded: Tensor, ranks: int, out: Tensor) -> None:
        """Write into ``out`` (N, BLOCK) the mean of what so many ranks say of the same rows, (ranks x N, row_bytes)."""
        ...


class EightBit:
    """A sign and 127 equal steps up to the block's largest number."""

    row_bytes = BLOCK + 4

    def encode(self, rows: Tensor, counts: Tensor) -> Tensor:
        largest = rows.abs().amax(1, keepdim=True)
        steps = torch.where(largest > 0, 127 / largest, 0)
        levels = (rows * steps).round_().nan_to_num_(0).to(torch.int8)
        return torch.cat([largest.view(torch.uint8), levels.view(torch.uint8)], 1)

    def decode(self, coded: Tensor, out: Tensor | None = None) -> Tensor:
        levels = coded[:, 4:].view(torch.int8)
        rows = torch.empty(levels.shape, device=coded.device) if out is None else out
        return rows.copy_(levels).mul_(_first(coded) / 127)

    def subtract(self, rows: Tensor, coded: Tensor) -> None:
        rows -= self.decode(coded)

    def mean(self, coded: Tensor, ranks: int, out: Tensor) -> None:
        torch.mean(self.decode(coded).view(ranks, *out.shape), 0, out=out)


class OneBit:
    """A sign; the size of all is the mean size of the block's."""

    row_bytes = BLOCK // 8 + 4

    def encode(self, rows: Tensor, counts: Tensor) -> Tensor:
        sizes, signs = bits.encode(rows, counts)
        return torch.cat([sizes.view(torch.uint8), signs], 1)

    def decode(self, coded: Tensor, out: Tensor | None = None) -> Tensor:
        return bits.decode(_first(coded), coded[:, 4:].contiguous(), out)

    def subtract(self, rows: Tensor, coded: Tensor) -> None:
        bits.subtract(rows, _first(coded), coded[:, 4:].contiguous())

    def mean(self, coded: Tensor, ranks: int, out: Tensor) -> None:
        bits.mean(_first(coded), coded[:, 4:].contiguous(), ranks, out)


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

    Room for the next rows, the next errors and the means is kept, as large as the vectors each: to get it anew takes
    longer than to fill it.
    """

    codec: Codec
    traffic: Traffic = field(default_factory=Traffic)
    error: Tensor | None = None
    own_error: Tensor | None = None
    _layout: "_Layout | None" = None
    _room: Tensor | None = None
    _own_room: Tensor | None = None
    _means: Tensor | None = None

    def __call__(self, vectors: Sequence[Tensor]) -> list[Tensor] | None:
        """Return the mean of each vector over all ranks, the same bits on all; None where one is not finite.

        Then the errors stay as they are. The means lie in a room that the next call fills again.
        """
        ranks = dist.get_world_size()
        sizes = tuple(vector.numel() for vector in vectors)
        if self._layout is None or self._layout.sizes != sizes or self._layout.ranks != ranks:
            self._layout = _Layout.of(sizes, ranks, vectors[0].device)
            self._room = self._own_room = self._means = None
        layout, own = self._layout, self._layout.own(dist.get_rank())
        rows = layout.rows(vectors, self.error, self._room)
        coded = self.codec.encode(rows, layout.counts)
        received = torch.empty_like(coded)
        self.traffic.all_to_all(coded)
        sent: Any = dist.all_to_all_single(received, coded, async_op=True)
        self.codec.subtract(rows, coded)  # what is lost of them, while they are under way
        layout.blank(rows, slice(None))
        sent.wait()
        mean = torch.empty_like(rows[own]) if self._own_room is None else self._own_room
        self.codec.mean(received, ranks, mean)
        if self.own_error is not None:
            mean += self.own_error
        layout.blank(mean, own)
        coded_mean = self.codec.encode(mean, layout.counts[own])
        gathered = torch.empty_like(coded)
        self.traffic.all_gather(coded_mean)
        sent = dist.all_gather_into_tensor(gathered, coded_mean, async_op=True)
        self.codec.subtract(mean, coded_mean)
        sent.wait()
        if not bool(_first(gathered).isfinite().all()):
            self._room, self._own_room = rows, mean
            return None
        self.error, self._room = rows, self.error
        self.own_error, self._own_room = layout.blank(mean, own), self.own_error
        self._means = self.codec.decode(gathered, self._means)
        return layout.vectors(self._means, vectors)

    def state_dict(self) -> dict[str, Any]:
        """Return what this rank needs to go on exactly."""
        return {"error": self.error, "own_error": self.own_error}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where this rank's :meth:`state_dict` was taken."""
        self.error, self.own_error = (
            e if e is None else e.clone() for e in (state["error"], state["own_error"])
        )


@dataclass(frozen=True)
class _Layout:
    """Where vectors of some sizes lie in rows of blocks (N, BLOCK), N a multiple of ``ranks``.

    Attributes:
        counts: numbers of each row that are no padding, (N,).
        places: of the padding, counted through all rows.
    """

    sizes: tuple[int, ...]
    ranks: int
    counts: Tensor
    places: Tensor

    @classmethod
    def of(cls, sizes: tuple[int, ...], ranks: int, device: torch.device) -> "_Layout":
        blocks = [-(-size // BLOCK) for size in sizes]
        total = -(-sum(blocks) // ranks) * ranks
        filled = torch.zeros(total, dtype=torch.int64)
        first = 0
        for size, count in zip(sizes, blocks, strict=True):
            filled[first : first + count] = BLOCK
            filled[first + count - 1] = size - (count - 1) * BLOCK
            first += count
        padding = torch.arange(BLOCK).expand(total, -1) >= filled[:, None]
        return cls(sizes, ranks, filled.to(device), padding.flatten().nonzero()[:, 0].to(device))

    def own(self, rank: int) -> slice:
        """Return the rows that are a rank's to average."""
        share = len(self.counts) // self.ranks
        return slice(rank * share, (rank + 1) * share)

    def rows(self, vectors: Sequence[Tensor], error: Tensor | None, room: Tensor | None) -> Tensor:
        """Return vectors, and the error on top, in ``room`` if there is any."""
        rows = torch.zeros(len(self.counts), BLOCK, device=self.counts.device) if room is None else room
        flat, first = rows.view(-1), 0
        for vector in vectors:
            part = slice(first, first + vector.numel())
            if error is None:
                flat[part] = vector.flatten()
            else:
                torch.add(vector.flatten(), error.view(-1)[part], out=flat[part])
            first += -(-vector.numel() // BLOCK) * BLOCK
        return rows

    def vectors(self, rows: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
        flat, first, found = rows.view(-1), 0, []
        for vector in like:
            found.append(flat[first : first + vector.numel()].view_as(vector))
            first += -(-vector.numel() // BLOCK) * BLOCK
        return found

    def blank(self, rows: Tensor, part: slice) -> Tensor:
        """Make zeros of the padding in some of all rows, in place."""
        begin, end, _ = part.indices(len(self.counts))
        inside = (self.places >= begin * BLOCK) & (self.places < end * BLOCK)
        rows.view(-1)[self.places[inside] - begin * BLOCK] = 0
        return rows


def _first(coded: Tensor) -> Tensor:
    """Return the number that each row begins with, (N, 1)."""
    return coded[:, :4].contiguous().view(torch.float32)
