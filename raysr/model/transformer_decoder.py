"""The Transformer decoder: causal self-attention over the tokens, cross-attention to the encoder's frames."""

import math
from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysr.model.attention import CrossAttention, KeyValue, SelfAttention
from raysr.model.config import DecoderConfig
from raysr.model.decoder import SOS, AttentionDecoder, attendable, take
from raysr.model.layers import FeedForward


class TransformerState(NamedTuple):
    """Keys and values of every block: of the memory, (B, T, H, head_dim), and of the tokens read."""

    memory: tuple[KeyValue, ...]
    mask: Tensor
    """Which frames of the memory may be attended to, (B, 1, 1, T)."""
    past: tuple[KeyValue, ...]
    """Of U tokens in N texts, (B, N, U, H, head_dim)."""


class DecoderBlock(nn.Module):
    """Causal self-attention, cross-attention and feed-forward, each a pre-norm residual."""

    def __init__(self, config: DecoderConfig, dim: int) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(dim)
        self.self_attention = SelfAttention(dim, config.heads)
        self.cross_norm = nn.LayerNorm(dim)
        self.cross_attention = CrossAttention(dim, config.heads)
        self.feed_forward = FeedForward(dim, config.feed_forward, config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, memory: KeyValue, mask: Tensor) -> Tensor:
        """Transform (B, N, U, D): N sequences that share one memory (B, T, H, head_dim)."""
        flat = x.flatten(0, 1)  # (B x N, U, D)
        flat = flat + self.dropout(self.self_attention(self.self_norm(flat), mask=None))
        return self._look(flat.view_as(x), memory, mask)

    def step(self, x: Tensor, past: KeyValue, memory: KeyValue, mask: Tensor) -> tuple[Tensor, KeyValue]:
        """Transform the next token of each sequence, (B, N, 1, D), after a past (B, N, U, H, head_dim)."""
        flat = x.flatten(0, 1)  # (B x N, 1, D)
        rows = KeyValue(past.key.flatten(0, 1), past.value.flatten(0, 1))
        attended, rows = self.self_attention.extend(self.self_norm(flat), rows)
        flat = flat + self.dropout(attended)
        past = KeyValue(*(part.view(*x.shape[:2], *part.shape[1:]) for part in rows))
        return self._look(flat.view_as(x), memory, mask), past

    def _look(self, x: Tensor, memory: KeyValue, mask: Tensor) -> Tensor:
        # The sequences of an utterance queue up as one row of queries, so that its memory is never copied.
        rows = x.flatten(1, 2)  # (B, N x U, D)
        rows = rows + self.dropout(self.cross_attention.attend(self.cross_norm(rows), memory, mask))
        return (rows + self.feed_forward(rows)).view_as(x)


class TransformerDecoder(AttentionDecoder[TransformerState]):
    """Vaswani et al. 2017, pre-norm."""

    def __init__(self, config: DecoderConfig, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(DecoderBlock(config, dim) for _ in range(config.layers))
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, vocab_size)
        nn.init.normal_(self.embedding.weight, std=1.0)

    def forward(self, memory: Tensor, memory_valid: Tensor, tokens: Tensor) -> Tensor:
        embedded = self.embedding(F.pad(tokens, (1, 0), value=SOS))  # (B, N, U + 1, D)
        x = self.dropout(embedded + sinusoids(0, embedded.shape[2], embedded))
        memory, mask = _positioned(memory, memory_valid)
        for block in self._blocks():
            x = block(x, block.cross_attention.project(memory), mask)
        return self.output(self.norm(x))

    def initial_state(self, memory: Tensor, memory_valid: Tensor, sequences: int) -> TransformerState:
        memory, mask = _positioned(memory, memory_valid)
        projected = tuple(block.cross_attention.project(memory) for block in self._blocks())
        # Of the projections' type, which under autocast is not that of the weights.
        past = tuple(
            KeyValue(*(part.new_zeros(len(memory), sequences, 0, *part.shape[2:]) for part in of_memory))
            for of_memory in projected
        )
        return TransformerState(projected, mask, past)

    def step(self, state: TransformerState, tokens: Tensor) -> tuple[Tensor, TransformerState]:
        embedded = self.embedding(tokens.unsqueeze(2))  # (B, N, 1, D)
        x = self.dropout(embedded + sinusoids(state.past[0].key.shape[2], 1, embedded))
        longer = []
        for block, past, memory in zip(self._blocks(), state.past, state.memory, strict=True):
            x, past = block.step(x, past, memory, state.mask)
            longer.append(past)
        return self.output(self.norm(x.squeeze(2))), state._replace(past=tuple(longer))

    def reorder(self, state: TransformerState, source: Tensor) -> TransformerState:
        past = tuple(KeyValue(take(key, source), take(value, source)) for key, value in state.past)
        return state._replace(past=past)

    def select(self, state: TransformerState, utterances: Tensor) -> TransformerState:
        memory, past = (
            tuple(KeyValue(key[utterances], value[utterances]) for key, value in caches)
            for caches in (state.memory, state.past)
        )
        return TransformerState(memory, state.mask[utterances], past)

    def _blocks(self) -> Iterator[DecoderBlock]:
        return cast("Iterator[DecoderBlock]", iter(self.blocks))


def _positioned(memory: Tensor, memory_valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the memory with positions and its mask (B, 1, 1, T)."""
    memory, mask = attendable(memory, memory_valid)
    # The encoder knows relative positions only; where a frame is helps to find the first alignments.
    return memory + sinusoids(0, memory.shape[1], memory), mask[:, None, None]


def sinusoids(first: int, length: int, like: Tensor) -> Tensor:
    """Return the embeddings (length, D) of positions from ``first`` on; D, dtype and device as ``like``."""
    dim = like.shape[-1]
    frequencies = torch.exp(torch.arange(0, dim, 2, device=like.device) * (-math.log(10000.0) / dim))
    angles = torch.outer(torch.arange(first, first + length, device=like.device), frequencies)
    return torch.cat((angles.sin(), angles.cos()), dim=-1).to(like.dtype)
