"""Self-attention with rotary positions against complex arithmetic and a plain softmax."""

import math

import pytest
import torch
from torch import Tensor

from raysr.model.attention import Rotary, SelfAttention, rotary, rotate
from raysr.model.mask import Chunk, chunk_mask


def turned(x: Tensor, first: int) -> Tensor:
    """Rotate (T, H, head_dim) as complex numbers e^(i x position x frequency), in double precision."""
    half = x.shape[-1] // 2
    numbers = torch.complex(x[..., :half].double(), x[..., half:].double())
    frequencies = 10000.0 ** (-torch.arange(half).double() / half)
    angles = (first + torch.arange(len(x)).double()).unsqueeze(1) * frequencies
    numbers = numbers * torch.polar(torch.ones_like(angles), angles).unsqueeze(1)
    return torch.cat((numbers.real, numbers.imag), dim=-1)


def reference(attention: SelfAttention, x: Tensor, mask: Tensor, first: int) -> Tensor:
    """Attend frame by frame and head by head; x (T, D)."""
    query, key, value = attention.projection(x).view(len(x), 3, attention.heads, -1).double().unbind(1)
    query, key = turned(query, first), turned(key, first)
    rows = []
    for i in range(len(x)):
        seen = mask[i].nonzero().flatten()
        heads = []
        for h in range(attention.heads):
            weights = (key[seen, h] @ query[i, h] / math.sqrt(query.shape[-1])).softmax(dim=0)
            heads.append(weights @ value[seen, h])
        rows.append(torch.cat(heads))
    return attention.output(torch.stack(rows).float())


@pytest.mark.parametrize("first", [0, 11])
def test_equals_the_definition_and_does_not_depend_on_the_origin(first: int) -> None:
    torch.manual_seed(0)
    attention, x = SelfAttention(dim=16, heads=2), torch.randn(1, 9, 16)
    mask = chunk_mask(9, Chunk(2, 1))
    out = attention(x, mask[None, None], rotary(torch.arange(9), 8, x.device))
    torch.testing.assert_close(out[0], reference(attention, x[0], mask, first), atol=1e-5, rtol=0)


def test_without_a_mask_no_step_sees_the_next() -> None:
    torch.manual_seed(0)
    attention, x = SelfAttention(dim=16, heads=2), torch.randn(2, 6, 16)
    causal = torch.ones(6, 6, dtype=torch.bool).tril()
    torch.testing.assert_close(attention(x, None), attention(x, causal))


def test_rotation_stays_exact_after_hours() -> None:
    frames, half = 400_000, 4
    x = torch.randn(1, frames, 1, 2 * half)
    positions = rotary(torch.arange(frames), 2 * half, x.device)
    late = rotate(x, positions)[0, -3:]
    expected = turned(x[0, -3:], frames - 3)
    torch.testing.assert_close(late.double(), expected, atol=1e-5, rtol=0)


def test_a_shorter_tensor_takes_the_last_positions() -> None:
    x, positions = torch.randn(1, 3, 2, 8), rotary(torch.arange(10), 8, torch.device("cpu"))
    last = Rotary(positions.cos[7:], positions.sin[7:])
    assert rotate(x, positions).equal(rotate(x, last))
