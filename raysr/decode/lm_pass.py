"""Where the language model comes in: within the prefix beam, or after it, as a rescorer of what the beam kept."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from raysr.decode.beam_state import BeamState
from raysr.decode.bias import ContextBias
from raysr.decode.decode_config import DecodeConfig
from raysr.decode.hypothesis import Hypothesis
from raysr.decode.language_model import LanguageModel, log_probs
from raysr.decode.prefix_beam import PrefixBeam


class PassBeam:
    """A prefix beam and its language model, in the pass that ``config.lm_pass`` names.

    Attributes:
        beam: the search, without the model if that comes second.
    """

    def __init__(
        self, config: DecodeConfig, lm: LanguageModel | None, bias: ContextBias | None = None
    ) -> None:
        self._config = config
        self._second = lm if config.lm_pass == "second" else None
        self.beam = PrefixBeam(config, None if self._second else lm, bias)

    def nbest(self, state: BeamState, n: int) -> list[list[Hypothesis]]:
        """Return up to ``n`` final hypotheses an utterance, best first; a second pass scores all that are kept."""
        if self._second is None:
            return self.beam.nbest(state, n, final=True)
        found = add_lm(
            self.beam.nbest(state, self.beam.places, final=True), self._second, self._config.lm_weight
        )
        return [hypotheses[:n] for hypotheses in found]

    def decode(self, posteriors: Tensor, lengths: Tensor, n: int) -> list[list[Hypothesis]]:
        """Return up to ``n`` hypotheses, best first, of natural-log posteriors (B, T, V) with ``lengths`` (B,)."""
        return self.nbest(self.beam.advance(self.beam.start(len(posteriors)), posteriors, lengths), n)


def add_lm(nbest: Sequence[Sequence[Hypothesis]], lm: LanguageModel, weight: float) -> list[list[Hypothesis]]:
    """Add the model's log-probability, eos included and times ``weight``, to scores without one; sort anew."""
    scores = iter(log_probs(lm, [h.tokens for hypotheses in nbest for h in hypotheses]).tolist())
    scored = [[_scored(h, next(scores), weight) for h in hypotheses] for hypotheses in nbest]
    return [sorted(hypotheses, key=lambda h: -h.score) for hypotheses in scored]


def _scored(hypothesis: Hypothesis, lm: float, weight: float) -> Hypothesis:
    return replace(hypothesis, lm=lm, score=hypothesis.score + weight * lm)
