"""The models whose log-probabilities one-pass decoding adds up: attention decoder, CTC, language models.

Each of them holds the state of N open hypotheses of each of B utterances, scores all their extensions in one
call, and follows when some of them are kept or utterances leave.
"""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from raysr.decode.ctc_prefix import CtcPrefixScorer
from raysr.decode.hypothesis import EOS
from raysr.decode.language_model import FusedModel, States
from raysr.model.decoder import SOS, AttentionDecoder
from raysr.model.mask import valid_frames


class Part(Protocol):
    """One of the models; every score is the sum over a whole hypothesis, float64."""

    def score(self) -> Tensor:
        """Return the scores (B, N, V) of the open hypotheses extended by each token, or ended by eos."""
        ...

    def keep(self, source: Tensor, tokens: Tensor, scores: Tensor) -> None:
        """Go on with the hypotheses at ``source`` extended by ``tokens``, as scored: each (B, M)."""
        ...

    def select(self, utterances: Tensor) -> None:
        """Keep the utterances (B',) alone."""
        ...


class AttentionPart:
    """log p(y | memory) of the attention decoder."""

    def __init__(self, decoder: AttentionDecoder[Any], memory: Tensor, lengths: Tensor) -> None:
        self._decoder = decoder
        self._state = decoder.initial_state(memory, valid_frames(lengths, memory.shape[1]), 1)
        self._last = torch.full((len(memory), 1), SOS, device=memory.device)
        self._sums = torch.zeros((len(memory), 1), dtype=torch.float64, device=memory.device)

    def score(self) -> Tensor:
        logits, self._state = self._decoder.step(self._state, self._last)
        return self._sums.unsqueeze(-1) + logits.float().log_softmax(dim=-1)

    def keep(self, source: Tensor, tokens: Tensor, scores: Tensor) -> None:
        self._state = self._decoder.reorder(self._state, source)
        self._last, self._sums = tokens, scores

    def select(self, utterances: Tensor) -> None:
        self._state = self._decoder.select(self._state, utterances)
        self._last, self._sums = self._last[utterances], self._sums[utterances]


class FusedPart:
    """The sum of a language model's log-probabilities, or of the bonuses of phrases."""

    def __init__(self, model: FusedModel, starts: States, device: torch.device) -> None:
        self._model = model
        self._states = starts.reshape(-1, 1)  # (B, N)
        self._sums = torch.zeros(self._states.shape, dtype=torch.float64, device=device)

    def score(self) -> Tensor:
        states = self._states.reshape(-1)
        scores = torch.tensor(self._model.score(states)).view(*self._states.shape, -1)
        scores[..., EOS] = torch.tensor(self._model.eos(states)).view(self._states.shape)
        return self._sums.unsqueeze(-1) + scores.to(self._sums.device)

    def keep(self, source: Tensor, tokens: Tensor, scores: Tensor) -> None:
        states = np.take_along_axis(self._states, source.cpu().numpy(), axis=1)
        read = tokens.cpu().numpy()
        open_ = read != EOS
        states[open_] = self._model.advance(states[open_], read[open_])
        self._states, self._sums = states, scores

    def select(self, utterances: Tensor) -> None:
        self._states, self._sums = self._states[utterances.cpu().numpy()], self._sums[utterances]


class CtcPart:
    """The CTC prefix score; unlike the others it may be asked for some tokens only."""

    def __init__(self, log_probs: Tensor, lengths: Tensor) -> None:
        self._scorer = CtcPrefixScorer(log_probs, lengths)
        self._state = self._scorer.start()

    def score(self, tokens: Tensor | None = None) -> Tensor:
        """Return the scores of all extensions (B, N, V), or of those by ``tokens`` (B, N, M)."""
        return self._scorer.score(self._state, tokens)

    def keep(self, source: Tensor, tokens: Tensor, scores: Tensor) -> None:
        self._state = self._scorer.advance(self._state, source, tokens)

    def select(self, utterances: Tensor) -> None:
        self._scorer.select(utterances)
        self._state = self._state.select(utterances)
