"""Attention and joint decoding of a model's encoder output: the methods ``attention`` and ``joint``."""

from dataclasses import replace

from torch import Tensor

from raysr.decode.alignment import align
from raysr.decode.bias import ContextBias
from raysr.decode.decode_config import DecodeConfig
from raysr.decode.hypothesis import Hypothesis
from raysr.decode.joint import JointBeam
from raysr.decode.language_model import LanguageModel
from raysr.errors import ConfigError
from raysr.model.model import AsrModel

ONE_PASS = frozenset({"attention", "joint"})
"""The methods."""


def one_pass(
    model: AsrModel,
    out: Tensor,
    lengths: Tensor,
    config: DecodeConfig,
    lm: LanguageModel | None = None,
    bias: ContextBias | None = None,
) -> list[list[Hypothesis]]:
    """Return the n-best hypotheses, best first, of encoder output (B, T, D) with valid frames ``lengths`` (B,).

    Times and confidences are those of the best CTC path. Where CTC has none for the tokens, times are spread
    evenly and confidences 0; where the model has no CTC head, confidences are the attention decoder's posteriors.

    Raises :class:`ConfigError` where the method needs a head that the model does not have.
    """
    if config.method == "attention":
        config = config.model_copy(update={"joint_ctc_weight": 0.0})
    if model.decoder is None and config.joint_ctc_weight < 1:
        raise ConfigError("ctc_weight: 1 leaves the model without an attention decoder; decode it with CTC")
    beam = JointBeam(config, model.decoder, lm)
    if model.ctc is None and config.joint_ctc_weight == 0:
        return _heard(model, out, lengths, beam.decode(out, lengths, None, config.nbest, bias))
    log_probs = model.ctc_log_probs(out)
    return _aligned(log_probs, lengths, beam.decode(out, lengths, log_probs, config.nbest, bias))


def _aligned(log_probs: Tensor, lengths: Tensor, found: list[list[Hypothesis]]) -> list[list[Hypothesis]]:
    """Return the hypotheses with times and confidences of their best CTC paths."""
    alignments = align(log_probs, lengths, [[h.tokens for h in nbest] for nbest in found])
    return [
        [
            replace(h, times=a.peaks, confidences=a.confidences)
            if a
            else replace(h, times=_spread(h, frames), confidences=(0.0,) * len(h.tokens))
            for h, a in zip(nbest, row, strict=True)
        ]
        for nbest, row, frames in zip(found, alignments, lengths.tolist(), strict=True)
    ]


def _heard(
    model: AsrModel, out: Tensor, lengths: Tensor, found: list[list[Hypothesis]]
) -> list[list[Hypothesis]]:
    """Return the hypotheses with the attention decoder's posteriors as confidences."""
    scores = model.attention_token_log_probs(out, lengths, [[h.tokens for h in nbest] for nbest in found])
    return [
        [
            replace(h, times=_spread(h, frames), confidences=tuple(s[:-1].exp().tolist()))
            for h, s in zip(nbest, row, strict=True)
        ]
        for nbest, row, frames in zip(found, scores, lengths.tolist(), strict=True)
    ]


def _spread(hypothesis: Hypothesis, frames: int) -> tuple[int, ...]:
    """Return a frame for each token, at equal distances."""
    count = len(hypothesis.tokens)
    return tuple((2 * n + 1) * frames // (2 * count) for n in range(count))
