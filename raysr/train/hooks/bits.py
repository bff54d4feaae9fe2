"""Signs of numbers, eight to a byte, and back: compiled for a CPU, by torch on any other device.

Rows are blocks (N, B) of float32, of which the first ``counts`` (N,) numbers are no padding.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raysr.decode.compiled import compiled

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Counts = NDArray[np.int64]


def encode(rows: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean size of each row's numbers, (N, 1), and their signs, (N, B / 8) bytes."""
    if rows.device.type != "cpu":
        return encode_by_torch(rows, counts)
    sizes = torch.empty(len(rows), 1)
    signs = torch.empty(len(rows), rows.shape[1] // 8, dtype=torch.uint8)
    _encode(rows.numpy(), counts.numpy(), sizes.numpy(), signs.numpy())
    return sizes, signs


def decode(sizes: Tensor, signs: Tensor, out: Tensor | None = None) -> Tensor:
    """Return rows (N, B), in ``out`` if there is any: the size of each, under the signs."""
    if signs.device.type != "cpu":
        rows = decode_by_torch(sizes, signs)
        return rows if out is None else out.copy_(rows)
    rows = torch.empty(len(signs), 8 * signs.shape[1]) if out is None else out
    _decode(sizes.numpy(), signs.numpy(), rows.numpy())
    return rows


def subtract(rows: Tensor, sizes: Tensor, signs: Tensor) -> None:
    """Take from rows (N, B), in place, what :func:`decode` makes of sizes and signs."""
    if signs.device.type != "cpu":
        rows -= decode_by_torch(sizes, signs)
    else:
        _subtract(rows.numpy(), sizes.numpy(), signs.numpy())


def mean(sizes: Tensor, signs: Tensor, ranks: int, out: Tensor) -> None:
    """Write into ``out`` (N, B) the mean over ranks of what :func:`decode` makes of (ranks x N) sizes and signs."""
    if signs.device.type != "cpu":
        torch.mean(decode_by_torch(sizes, signs).view(ranks, *out.shape), 0, out=out)
    else:
        rows = len(out)
        _mean(sizes.view(ranks, rows).numpy(), signs.view(ranks, rows, -1).numpy(), out.numpy())


def encode_by_torch(rows: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Do what :func:`encode` does on any device."""
    sizes = rows.abs().sum(1, keepdim=True) / counts.clamp(min=1)[:, None]
    places = torch.arange(8, device=rows.device, dtype=torch.uint8)
    bits = (rows >= 0).view(len(rows), -1, 8).to(torch.uint8)
    return sizes, (bits << places).sum(-1, dtype=torch.uint8)


def decode_by_torch(sizes: Tensor, signs: Tensor) -> Tensor:
    """Do what :func:`decode` does on any device."""
    places = torch.arange(8, device=signs.device, dtype=torch.uint8)
    positive = (signs[:, :, None] >> places & 1).bool().flatten(1)
    return torch.where(positive, sizes, -sizes)


@compiled
def _encode(rows: Floats, counts: Counts, sizes: Floats, signs: Bytes) -> None:
    for n in range(len(rows)):
        row, total = rows[n], np.float32(0)
        for place in range(len(row)):
            total += abs(row[place])
        sizes[n, 0] = total / np.float32(max(counts[n], 1))
        for byte in range(len(row) // 8):
            bits = 0
            for place in range(8):
                bits |= (row[8 * byte + place] >= 0) << place
            signs[n, byte] = bits


@compiled
def _decode(sizes: Floats, signs: Bytes, rows: Floats) -> None:
    for n in range(len(rows)):
        size = sizes[n, 0]
        for byte in range(rows.shape[1] // 8):
            bits = signs[n, byte]
            for place in range(8):
                rows[n, 8 * byte + place] = size if (bits >> place) & 1 else -size


@compiled
def _subtract(rows: Floats, sizes: Floats, signs: Bytes) -> None:
    for n in range(len(rows)):
        size = sizes[n, 0]
        for byte in range(signs.shape[1]):
            bits = signs[n, byte]
            for place in range(8):
                rows[n, 8 * byte + place] -= size if (bits >> place) & 1 else -size


@compiled
def _mean(sizes: Floats, signs: Bytes, out: Floats) -> None:
    ranks = len(sizes)
    for n in range(len(out)):
        for rank in range(ranks):
            size = sizes[rank, n] / np.float32(ranks)
            for byte in range(signs.shape[2]):
                bits = signs[rank, n, byte]
                for place in range(8):
                    value = size if (bits >> place) & 1 else -size
                    if rank == 0:
                        out[n, 8 * byte + place] = value
                    else:
                        out[n, 8 * byte + place] += value
