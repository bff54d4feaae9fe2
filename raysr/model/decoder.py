"""The attention decoder: a small Transformer over the tokens that also attends to the encoder's frames."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysr.model.attention import CrossAttention, SelfAttention
from raysr.model.config import DecoderConfig
from raysr.model.layers import FeedForward

SOS = EOS = 2


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

    def forward(self, x: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """Transform (B, N, U, D): N sequences that share one memory (B, T, D)."""
        batch, sequences, steps, _ = x.shape
        flat = x.flatten(0, 1)  # (B x N, U, D)
        flat = flat + self.dropout(self.self_attention(self.self_norm(flat), mask=None))
        # The sequences of an utterance queue up as one row of queries, so that its memory is never copied.
        rows = flat.view(batch, sequences * steps, -1)
        rows = rows + self.dropout(self.cross_attention(self.cross_norm(rows), memory, memory_mask))
        return (rows + self.feed_forward(rows)).view_as(x)


class AttentionDecoder(nn.Module):
    """Predicts every token from the tokens before it and the encoder's output; sos = eos = 2."""

    def __init__(self, config: DecoderConfig, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(DecoderBlock(config, dim) for _ in range(config.layers))
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, vocab_size)
        nn.init.normal_(self.embedding.weight, std=1.0)

    def forward(self, memory: Tensor, memory_valid: Tensor, tokens: Tensor) -> Tensor:
        """Return logits (B, N, U + 1, V) of the tokens (B, N, U) and eos, given the memory (B, T, D)."""
        inputs = F.pad(tokens, (1, 0), value=SOS)  # (B, N, U + 1)
        x = self.embedding(inputs) + sinusoids(inputs.shape[-1], memory)
        # The encoder knows relative positions only; where a frame is helps to find the first alignments.
        memory = memory + sinusoids(memory.shape[1], memory)
        # A memory of no frames is attended to as if valid: softmax over nothing would be NaN.
        mask = (memory_valid | ~memory_valid.any(dim=1, keepdim=True))[:, None, None]  # (B, 1, 1, T)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, memory, mask)
        return self.output(self.norm(x))


def sinusoids(length: int, like: Tensor) -> Tensor:
    """Return the position embeddings (length, D) of Vaswani et al. 2017; D, dtype and device as ``like``."""
    dim = like.shape[-1]
    frequencies = torch.exp(torch.arange(0, dim, 2, device=like.device) * (-math.log(10000.0) / dim))
    angles = torch.outer(torch.arange(length, device=like.device), frequencies)
    return torch.cat((angles.sin(), angles.cos()), dim=-1).to(like.dtype)


def append_eos(tokens: Tensor, lengths: Tensor) -> Tensor:
    """Return targets (…, U + 1): the tokens (…, U), eos after the last one, and -1 from there on."""
    steps = torch.arange(tokens.shape[-1] + 1, device=tokens.device)
    targets = F.pad(tokens, (0, 1))
    end = lengths.unsqueeze(-1)
    return targets.masked_fill(steps == end, EOS).masked_fill(steps > end, -1)


def label_smoothing_loss(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Return KL(q || p) per position (…,) in float32; 0 where the target is negative.

    q puts 1 - smoothing on the target and smoothing / (V - 1) on every other token.
    """
    with torch.autocast(logits.device.type, enabled=False):
        log_probs = logits.float().log_softmax(dim=-1)
    others = smoothing / (logits.shape[-1] - 1)
    at_target = log_probs.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    cross_entropy = -(1 - smoothing - others) * at_target - others * log_probs.sum(dim=-1)
    entropy = -(1 - smoothing) * math.log(1 - smoothing)
    if others > 0:
        entropy -= smoothing * math.log(others)
    return (cross_entropy - entropy).masked_fill(targets < 0, 0.0)
