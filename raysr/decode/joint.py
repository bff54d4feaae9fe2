"""One-pass decoding with an attention decoder, CTC and language models, all hypotheses and utterances at once.

The joint search of Watanabe et al. (2017, "Hybrid CTC/Attention Architecture for End-to-End Speech
Recognition") and Hori et al. (2017, arXiv:1706.02737). Without CTC it is the beam search of an attention
decoder, without a decoder a prefix search of CTC that goes token by token.
"""

from typing import Any

import numpy as np
from torch import Tensor

from raysr.decode.bias import ContextBias
from raysr.decode.hypothesis import EMPTY, Hypothesis
from raysr.decode.joint_parts import AttentionPart, CtcPart, FusedPart
from raysr.decode.joint_search import JointConfig, JointSearch, Weighted
from raysr.decode.language_model import LanguageModel
from raysr.model.decoder import AttentionDecoder

__all__ = ["JointBeam", "JointConfig"]


class JointBeam:
    """The search; a hypothesis has the score λ·ctc + (1 - λ)·attention + lm_weight·lm + length_bonus·tokens."""

    def __init__(
        self, config: JointConfig, decoder: AttentionDecoder[Any] | None, lm: LanguageModel | None = None
    ) -> None:
        """Take the models; ``decoder`` may be None where λ is 1. ValueError where it is missing."""
        if decoder is None and config.joint_ctc_weight < 1:
            raise ValueError("a joint_ctc_weight below 1 needs an attention decoder")
        self.config = config
        self.decoder = decoder
        self.lm = lm

    def decode(
        self,
        memory: Tensor,
        lengths: Tensor,
        log_probs: Tensor | None = None,
        n: int | None = None,
        bias: ContextBias | None = None,
    ) -> list[list[Hypothesis]]:
        """Return the ``n`` best hypotheses (as many as the beam by default), best first, of each utterance.

        Args:
            memory: encoder output (B, T, D).
            lengths: its valid frames (B,); an utterance of none has the empty hypothesis.
            log_probs: natural-log CTC posteriors (B, T, V); needed unless λ is 0, where they only fill in
                ``ctc``.
            n: hypotheses to return.
            bias: bonuses for phrases.

        Times and confidences are left empty. ``ctc`` is exact (``-inf`` for what the frames cannot hold), and
        0 without posteriors.
        """
        found: list[list[Hypothesis]] = [[EMPTY] for _ in range(len(memory))]
        spoken = lengths.nonzero().squeeze(1)
        if len(spoken):
            search = self._begin(memory, lengths, log_probs, spoken, n or self.config.beam, bias)
            while len(search.utterances):
                search.step()
                for utterance, hypotheses in search.leave():
                    found[utterance] = hypotheses or [EMPTY]
        return found

    def _begin(
        self,
        memory: Tensor,
        lengths: Tensor,
        log_probs: Tensor | None,
        spoken: Tensor,
        n: int,
        bias: ContextBias | None,
    ) -> JointSearch:
        memory, lengths, device = memory[spoken], lengths[spoken], memory.device
        weight = self.config.joint_ctc_weight
        limits = (lengths * self.config.max_length_ratio).long().clamp(min=1)
        ctc, others = None, []
        if log_probs is not None:
            ctc = CtcPart(log_probs[spoken], lengths)
        if weight > 0:
            if ctc is None:
                raise ValueError("a joint_ctc_weight above 0 needs CTC posteriors")
            limits = limits.minimum(lengths)
        if self.decoder is not None and weight < 1:
            others.append(Weighted("attention", 1 - weight, AttentionPart(self.decoder, memory, lengths)))
        if self.lm is not None:
            starts = np.full(len(memory), self.lm.start(), np.int64)
            others.append(Weighted("lm", self.config.lm_weight, FusedPart(self.lm, starts, device)))
        if bias is not None:
            starts = bias.starts[spoken.cpu().numpy()]
            others.append(Weighted("bias", 1.0, FusedPart(bias, starts, device)))
        return JointSearch(self.config, ctc, others, spoken, limits, n)
