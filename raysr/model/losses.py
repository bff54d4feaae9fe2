"""Losses of the attention decoder, per position and in float32 under autocast."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from raysr.model.decoder import EOS


def reversed_tokens(tokens: Tensor, lengths: Tensor) -> Tensor:
    """Return the tokens (…, U) right to left, each text within its length; padding stays where it is."""
    steps = torch.arange(tokens.shape[-1], device=tokens.device)
    mirrored = lengths.unsqueeze(-1) - 1 - steps
    return tokens.gather(-1, torch.where(mirrored < 0, steps, mirrored))


def append_eos(tokens: Tensor, lengths: Tensor) -> Tensor:
    """Return targets (…, U + 1): the tokens (…, U), eos after the last one, and -1 from there on."""
    steps = torch.arange(tokens.shape[-1] + 1, device=tokens.device)
    targets = F.pad(tokens, (0, 1))
    end = lengths.unsqueeze(-1)
    return targets.masked_fill(steps == end, EOS).masked_fill(steps > end, -1)


def at_least_float32(x: Tensor) -> Tensor:
    """Return ``x`` in float32, or in float64 where it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return log-probabilities over the last dimension of logits / temperature, in float32 under autocast."""
    with torch.autocast(logits.device.type, enabled=False):
        return (at_least_float32(logits) / temperature).log_softmax(dim=-1)


def label_smoothing_loss(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Return KL(q || p) per position (…,); 0 where the target is negative.

    q puts 1 - smoothing on the target and smoothing / (V - 1) on every other token.
    """
    log_probs = log_softmax(logits)
    others = smoothing / (logits.shape[-1] - 1)
    at_target = log_probs.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    cross_entropy = -(1 - smoothing - others) * at_target - others * log_probs.sum(dim=-1)
    entropy = -(1 - smoothing) * math.log(1 - smoothing)
    if others > 0:
        entropy -= smoothing * math.log(others)
    return (cross_entropy - entropy).masked_fill(targets < 0, 0.0)
