"""CTC prefix scores: how probable it is that the transcript begins with given tokens.

The score of Watanabe et al. (2017, "Hybrid CTC/Attention Architecture for End-to-End Speech Recognition",
algorithm 2), without a loop over hypotheses, tokens or frames. With γ(t) the probability of all alignments of
the first t frames that fold to a prefix h, the one of all alignments that begin with h·c is Σ γ(t - 1) p_t(c):
a product of matrices for all tokens c at once. Forward variables are computed for the hypotheses kept alone.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from raysr.decode.hypothesis import BLANK, EOS
from raysr.model.decoder import take
from raysr.model.mask import valid_frames


@dataclass(slots=True)
class PrefixState:
    """Forward variables of N prefixes of each of B utterances, natural logarithms.

    Attributes:
        blank, nonblank: log-probability (B, N, T + 1) of the alignments of the first t = 0 … T frames that
            fold to the prefix and end in a blank, in its last token.
        last: the last token (B, N); the blank before the first one.
    """

    blank: Tensor
    nonblank: Tensor
    last: Tensor

    def total(self) -> Tensor:
        """Return the log-probability (B, N, T + 1) of all alignments that fold to the prefix."""
        return torch.logaddexp(self.blank, self.nonblank)

    def pick(self, source: Tensor) -> "PrefixState":
        """Return the prefixes at the places ``source`` (B, M)."""
        return PrefixState(take(self.blank, source), take(self.nonblank, source), take(self.last, source))

    def select(self, utterances: Tensor) -> "PrefixState":
        """Return the prefixes of the utterances (B',)."""
        return PrefixState(self.blank[utterances], self.nonblank[utterances], self.last[utterances])


class CtcPrefixScorer:
    """Scores prefixes of a batch of utterances, in float64 and on the device of the posteriors."""

    def __init__(self, log_probs: Tensor, lengths: Tensor) -> None:
        """Take natural-log CTC posteriors (B, T, V) with T ≥ 1, of which ``lengths`` (B,) frames are valid."""
        valid = valid_frames(lengths, log_probs.shape[1])
        self._probs = (log_probs.double().exp() * valid.unsqueeze(-1)).mT.contiguous()  # (B, V, T)
        self._lengths = lengths

    def start(self) -> PrefixState:
        """Return the state of the empty prefix, N = 1."""
        blank = F.pad(self._log(self._probs[:, None, BLANK]).cumsum(dim=-1), (1, 0))  # (B, 1, T + 1)
        last = torch.full(blank.shape[:2], BLANK, device=blank.device)
        return PrefixState(blank, torch.full_like(blank, -torch.inf), last)

    def score(self, state: PrefixState, tokens: Tensor | None = None) -> Tensor:
        """Return the log-probabilities of prefixes extended by one token.

        Args:
            state: N prefixes of each utterance.
            tokens: those to extend each prefix by (B, N, M); the whole vocabulary by default, which is cheaper
                than picking out more than a few.

        Returns (B, N, M) or (B, N, V), float64: for a token that of all alignments which begin with the
        extended prefix, for eos that of the prefix as the whole transcript, for the blank ``-inf``.
        """
        total = state.total()
        peak = total[..., :-1].amax(dim=-1, keepdim=True).clamp(min=_FLOOR)  # (B, N, 1)
        weights = (total[..., :-1] - peak).exp()  # (B, N, T)
        if tokens is None:
            tokens = torch.arange(self._probs.shape[1], device=total.device)
            mass = weights @ self._probs.mT  # (B, N, V)
        else:
            mass = (self._rows(tokens) @ weights.unsqueeze(-1)).squeeze(-1)  # (B, N, M)
        # A token repeats the last one only after a blank.
        after_blank = (state.blank[..., :-1] - peak).exp()
        repeated = (after_blank * self._rows(state.last)).sum(dim=-1, keepdim=True)  # (B, N, 1)
        mass = torch.where(tokens == state.last.unsqueeze(-1), repeated, mass)
        ends = self._lengths[:, None, None].expand(*total.shape[:2], 1)
        scores = torch.where(tokens == EOS, total.gather(2, ends), peak + mass.log())
        return scores.masked_fill(tokens == BLANK, -torch.inf)

    def advance(self, state: PrefixState, source: Tensor, tokens: Tensor) -> PrefixState:
        """Return the state of the prefixes at ``source`` (B, M), each extended by a token of ``tokens`` (B, M)."""
        origin = state.pick(source)
        repeats = (tokens == origin.last).unsqueeze(-1)
        entering = torch.where(repeats, origin.blank, origin.total())
        nonblank = _run(entering, self._log(self._rows(tokens)))
        blank = _run(nonblank, self._log(self._probs[:, None, BLANK]))
        return PrefixState(blank, nonblank, tokens)

    def select(self, utterances: Tensor) -> None:
        """Keep the utterances (B',) alone."""
        self._probs, self._lengths = self._probs[utterances], self._lengths[utterances]

    def _rows(self, tokens: Tensor) -> Tensor:
        """Return the posteriors (B, …, T) of ``tokens`` (B, …)."""
        batch = torch.arange(len(tokens), device=tokens.device)
        return self._probs[batch.view(-1, *[1] * (tokens.dim() - 1)), tokens]

    @staticmethod
    def _log(probs: Tensor) -> Tensor:
        """Return logarithms that are finite, lest sums over frames come to ``inf - inf``."""
        return probs.clamp(min=torch.finfo(probs.dtype).tiny).log()


_FLOOR = torch.finfo(torch.float64).min


def _run(entering: Tensor, log_probs: Tensor) -> Tensor:
    """Return the forward variable (…, T + 1) of a label that is entered after any frame and then repeated.

    It solves r(t) = log_probs(t) + logaddexp(r(t - 1), entering(t - 1)), r(0) = -inf.

    Args:
        entering: log-probability (…, T + 1) of being where the label can be entered.
        log_probs: that of the label in each frame (…, T).
    """
    sums = log_probs.cumsum(dim=-1)
    entered = torch.logcumsumexp(entering[..., :-1] - (sums - log_probs), dim=-1)
    return F.pad(sums + entered, (1, 0), value=-torch.inf)
