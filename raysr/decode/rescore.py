"""Second pass: the attention decoder reads every hypothesis of the first and the n-best list is sorted anew.

As in U2 (Zhang et al. 2020, arXiv:2012.05481), without length normalisation; the parts of the language model and of
boosted phrases stay.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from pydantic import Field
from torch import Tensor

from raysr.config import Config
from raysr.decode.hypothesis import Hypothesis


class RescoreConfig(Config):
    """Weights of the log-probabilities in the second pass; ``length_bonus`` is added for every token.

    The attention's is (1 - reverse_weight) x left to right + reverse_weight x right to left, as in U2++
    (Wu et al. 2021, arXiv:2106.05642).
    """

    attention_weight: float = 0.3
    reverse_weight: float = Field(default=0.0, ge=0, le=1)
    ctc_weight: float = 0.7
    lm_weight: float = 0.5
    length_bonus: float = 0.0


class AttentionScorer(Protocol):
    """What rescoring needs of a model."""

    def attention_log_probs(
        self,
        out: Tensor,
        lengths: Tensor,
        hypotheses: Sequence[Sequence[Sequence[int]]],
        reverse: bool = False,
    ) -> list[Tensor]:
        """Return log p(tokens, eos | out) of every hypothesis of every utterance, also right to left."""
        ...


def rescore(
    model: AttentionScorer,
    out: Tensor,
    lengths: Tensor,
    nbest: list[list[Hypothesis]],
    config: RescoreConfig,
) -> list[list[Hypothesis]]:
    """Return the n-best lists with attention scores, sorted best first.

    Args:
        model: scores hypotheses; raises :class:`raysr.errors.ConfigError` if it has no attention decoder, or
            none that reads right to left where ``reverse_weight`` is above 0.
        out: encoder output (B, T, D).
        lengths: its valid frames (B,).
        nbest: hypotheses of each utterance, of any number and order; those of an utterance without frames
            are returned as they are, since attention has nothing to look at.
        config: the weights; the scores in ``nbest`` are replaced, their parts are kept.
    """
    asked = [hyps if length else [] for hyps, length in zip(nbest, lengths.tolist(), strict=True)]
    texts = [[h.tokens for h in hyps] for hyps in asked]
    with torch.inference_mode():
        scores = model.attention_log_probs(out, lengths, texts)
        if config.reverse_weight > 0:
            backwards = model.attention_log_probs(out, lengths, texts, reverse=True)
            scores = [
                torch.lerp(left, right, config.reverse_weight)
                for left, right in zip(scores, backwards, strict=True)
            ]
    return [
        _sorted(hyps, attention, config) if len(attention) else kept
        for kept, hyps, attention in zip(nbest, asked, scores, strict=True)
    ]


def _sorted(hypotheses: list[Hypothesis], attention: Tensor, config: RescoreConfig) -> list[Hypothesis]:
    scored = [_rescored(h, a, config) for h, a in zip(hypotheses, attention.tolist(), strict=True)]
    return sorted(scored, key=lambda h: -h.score)


def _rescored(hypothesis: Hypothesis, attention: float, config: RescoreConfig) -> Hypothesis:
    score = (
        config.attention_weight * attention
        + config.ctc_weight * hypothesis.ctc
        + config.lm_weight * hypothesis.lm
        + hypothesis.bias
        + config.length_bonus * len(hypothesis.tokens)
    )
    return replace(hypothesis, attention=attention, score=score)
