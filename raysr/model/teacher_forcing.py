"""The attention decoder reads given texts in one pass: their loss, and what it expected at every token."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from raysr.model.decoder import AttentionDecoder
from raysr.model.distillation import Distributions, WordLevel, top, word_level_loss
from raysr.model.losses import append_eos, label_smoothing_loss, log_softmax
from raysr.model.mask import valid_frames

Decoder = AttentionDecoder[Any]


def attention_loss(
    decoder: Decoder,
    out: Tensor,
    lengths: Tensor,
    tokens: Tensor,
    token_lengths: Tensor,
    smoothing: float,
    words: WordLevel | None = None,
) -> Tensor:
    """Return the loss (B,) of texts (B, U), summed over their tokens and eos, given encoder output (B, T, D)."""
    targets = append_eos(tokens, token_lengths)  # (B, U + 1)
    logits = _logits(decoder, out, lengths, tokens)
    loss = label_smoothing_loss(logits, targets, smoothing).sum(dim=1)
    if words is None:
        return loss
    taught = word_level_loss(logits, words.teacher, targets >= 0, words.temperature).sum(dim=1)
    return (1 - words.weight) * loss + words.weight * taught


@torch.no_grad()
def distributions(decoder: Decoder, out: Tensor, lengths: Tensor, tokens: Tensor, k: int) -> Distributions:
    """Return the k likeliest tokens at every token of the texts (B, U) and at eos: (B, U + 1, k)."""
    return top(_logits(decoder, out, lengths, tokens), k)


def token_log_probs(
    decoder: Decoder, out: Tensor, lengths: Tensor, hypotheses: Sequence[Sequence[Sequence[int]]]
) -> list[list[Tensor]]:
    """Return log p of every token and of eos, (U + 1,) float32 for each hypothesis of each utterance."""
    most = max((len(nbest) for nbest in hypotheses), default=0)
    if most == 0:
        return [[] for _ in hypotheses]
    flat = [
        torch.tensor(list(tokens), dtype=torch.long)
        for nbest in hypotheses
        for tokens in [*nbest, *[()] * (most - len(nbest))]
    ]
    shape = (len(hypotheses), most)
    token_lengths = torch.tensor([len(tokens) for tokens in flat], device=out.device).view(shape)
    tokens = pad_sequence(flat, batch_first=True).view(*shape, -1).to(out.device)  # (B, N, U)
    logits = decoder(out, valid_frames(lengths, out.shape[1]), tokens)
    targets = append_eos(tokens, token_lengths).clamp(min=0)  # (B, N, U + 1)
    scores = log_softmax(logits).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return [
        [scores[b, n, : len(tokens) + 1] for n, tokens in enumerate(nbest)]
        for b, nbest in enumerate(hypotheses)
    ]


def _logits(decoder: Decoder, out: Tensor, lengths: Tensor, tokens: Tensor) -> Tensor:
    """Return (B, U + 1, V) of one text (U,) per utterance."""
    logits: Tensor = decoder(out, valid_frames(lengths, out.shape[1]), tokens.unsqueeze(1))
    return logits.squeeze(1)
