"""Distillation of a sequence-to-sequence teacher (Kim & Rush 2016, arXiv:1606.07947): by word, by sequence, between.

Word-level: at every token of the text the student is to have the teacher's distribution. Sequence-level: it
learns the teacher's beam output as if it were the text. Interpolation: it learns that hypothesis of the teacher's
n-best list which is nearest to the reference, see :func:`raysr.decode.nearest.nearest`.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from raysr.model.losses import at_least_float32, log_softmax


class Distributions(NamedTuple):
    """A teacher's distributions over the vocabulary, each by K log-probabilities at temperature 1."""

    log_probs: Tensor
    """(…, K); what is missing to a probability of 1 is spread evenly over the other V - K tokens."""
    ids: Tensor | None = None
    """The tokens that they belong to, (…, K); None: all tokens, K = V."""


class WordLevel(NamedTuple):
    """A batch's targets: attention loss = (1 - weight) x that of the labels + weight x temperature² x KL."""

    teacher: Distributions
    """(B, U + 1, K), of every token and eos given the labels before; padded positions may hold any tokens."""
    weight: float | Tensor
    """One for all, or (B,)."""
    temperature: float = 1.0


class SequenceLevel(NamedTuple):
    """A batch's targets: loss = (1 - weight) x that of the labels + weight x that of the teacher's ``tokens``."""

    tokens: Tensor
    """(B, U')."""
    token_lengths: Tensor
    """(B,)."""
    weight: float | Tensor
    """One for all, or (B,)."""


def top(logits: Tensor, k: int) -> Distributions:
    """Return the ``k`` likeliest tokens of each distribution (…, V), without gradient; all of them where k ≥ V."""
    log_probs = log_softmax(logits.detach())
    if k >= logits.shape[-1]:
        return Distributions(log_probs)
    return Distributions(*log_probs.topk(k, dim=-1))


def dense(teacher: Distributions, vocab_size: int) -> Tensor:
    """Return the log-probabilities (…, V) of every token."""
    log_probs, ids = at_least_float32(teacher.log_probs), teacher.ids
    if ids is None:
        return log_probs
    others = vocab_size - log_probs.shape[-1]
    rest = (1 - log_probs.exp().sum(dim=-1, keepdim=True)).clamp(min=0).log() - math.log(max(others, 1))
    return rest.expand(*rest.shape[:-1], vocab_size).scatter(-1, ids.long(), log_probs)


def word_level_loss(
    logits: Tensor, teacher: Distributions, valid: Tensor, temperature: float = 1.0
) -> Tensor:
    """Return temperature² x KL(teacher || student) at every position (…,), in float32 under autocast.

    Args:
        logits: the student's, (…, V).
        teacher: of the same leading shape.
        valid: (…,), True where a position counts; elsewhere the loss is 0.
        temperature: divides the logits of both (Hinton et al. 2015); its square keeps the size of the gradient.

    Raises ValueError for distributions over another vocabulary or of other texts.
    """
    vocab_size = logits.shape[-1]
    given = tuple(teacher.log_probs.shape)
    if given[:-1] != logits.shape[:-1] or (teacher.ids is None and given[-1] != vocab_size):
        raise ValueError(f"distributions of shape {given} cannot teach logits of shape {tuple(logits.shape)}")
    student = log_softmax(logits, temperature)
    with torch.no_grad():
        log_probs = dense(teacher, vocab_size).masked_fill(~valid.unsqueeze(-1), 0.0)
        # The softmax also repairs what storing in few bits has done to the sum.
        wanted = log_softmax(log_probs, temperature).exp().to(student.dtype)
    divergence = (torch.xlogy(wanted, wanted) - wanted * student).sum(dim=-1)
    return temperature**2 * divergence.masked_fill(~valid, 0.0)
