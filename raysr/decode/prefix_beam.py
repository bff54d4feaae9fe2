"""CTC prefix beam search with shallow fusion, over a batch of utterances and all their prefixes at once.

The search of Hannun et al. (2014, arXiv:1408.2873), a frame a step, without a loop over prefixes. Every frame
is treated alike wherever a call ends, hence any split of the frames gives the same result.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from raysr.config import Config
from raysr.decode.beam_state import BeamState, Floats, Integers, Prefixes
from raysr.decode.beam_step import choose, extensions, follow, merge, stay
from raysr.decode.hypothesis import BLANK, Hypothesis, common_prefix
from raysr.decode.language_model import LanguageModel


class PrefixBeamConfig(Config):
    """Options of the search.

    Attributes:
        beam: prefixes kept after each frame.
        token_beam: tokens that may extend a prefix in one frame, the most probable ones; a vocabulary no
            larger than this is searched in full.
        blank_skip: in a frame whose blank is more probable than this no prefix is extended; prefixes still
            take their blank or repeat, so that no more than the mass 1 - blank_skip is lost. 1 never skips.
        lm_weight: weight of the language model's log-probability.
        length_bonus: added for every token, against the language model's liking for short sentences.
    """

    beam: int = Field(default=16, ge=1)
    token_beam: int = Field(default=40, ge=1)
    blank_skip: float = Field(default=0.999, gt=0, le=1)
    lm_weight: float = 0.5
    length_bonus: float = 0.0


class PrefixBeam:
    """The search; all that changes is in the :class:`BeamState` that is handed through."""

    def __init__(self, config: PrefixBeamConfig, lm: LanguageModel | None = None) -> None:
        self.config = config
        self.lm = lm
        self._skip_above = float(np.log(config.blank_skip)) if config.blank_skip < 1 else float("inf")

    def start(self, batch: int) -> BeamState:
        """Return the state before the first frame of ``batch`` utterances."""
        return BeamState.new(batch, self.config.beam, self.lm.start() if self.lm else 0)

    def advance(self, state: BeamState, log_probs: Tensor, lengths: Tensor | None = None) -> BeamState:
        """Read frames: natural-log posteriors (B, t, V), of which the first ``lengths`` (B,) are valid.

        ``state`` is changed in place and returned.
        """
        frames = log_probs.detach().cpu().numpy()
        counts = np.full(len(frames), frames.shape[1]) if lengths is None else lengths.cpu().numpy()
        longest = int(counts.max(initial=0))
        state.reserve(longest)
        for t in range(longest):
            reads, skips = counts > t, frames[:, t, BLANK] > self._skip_above
            for rows, extend in ((reads & ~skips, True), (reads & skips, False)):
                self._step_rows(state, frames[:, t], np.flatnonzero(rows), extend)
        return state

    def nbest(self, state: BeamState, n: int, final: bool) -> list[list[Hypothesis]]:
        """Return up to ``n`` hypotheses an utterance, best first; ``final`` adds the language model's eos."""
        p = state.prefixes
        ctc, lm = p.total(), p.lm
        if final and self.lm:
            lm = lm + self.lm.eos(p.lm_state.reshape(-1)).reshape(lm.shape)
        score = ctc + self._extras(lm, p.length)
        order = np.argsort(-score, axis=1, kind="stable")[:, :n]
        return [
            [
                self._hypothesis(state, b, k, float(score[b, k]), float(ctc[b, k]), float(lm[b, k]))
                for k in places.tolist()
                if np.isfinite(ctc[b, k])
            ]
            for b, places in enumerate(order)
        ]

    def stable_prefix(self, state: BeamState) -> list[tuple[int, ...]]:
        """Return for every utterance the tokens all kept prefixes begin with; no later frame changes them."""
        alive = np.isfinite(state.prefixes.total())
        return [
            common_prefix([state.trace(b, int(k))[0] for k in np.flatnonzero(row)])
            for b, row in enumerate(alive)
        ]

    def settle(self, state: BeamState, frame: int) -> None:
        """Drop the prefixes that differ from the best one in a token it put before ``frame``.

        Without this one doubtful token stays open as long as everything after it is sure, since the beam then
        holds nothing but its alternatives.
        """
        alive = np.isfinite(state.prefixes.total())
        other = np.zeros_like(alive)
        for b, (best,) in enumerate(self.nbest(state, 1, final=False)):
            settled = list(best.tokens[: sum(time < frame for time in best.times)])
            for k in np.flatnonzero(alive[b]):
                other[b, k] = state.trace(b, int(k))[0][: len(settled)] != settled
        state.prefixes.forget(other)

    def decode(self, log_probs: Tensor, lengths: Tensor, n: int | None = None) -> list[list[Hypothesis]]:
        """Return the ``n`` best hypotheses (all that are kept by default) of posteriors (B, T, V)."""
        state = self.advance(self.start(len(log_probs)), log_probs, lengths)
        return self.nbest(state, self.config.beam if n is None else n, final=True)

    def _step_rows(self, state: BeamState, frame: NDArray[np.float32], rows: Integers, extend: bool) -> None:
        """Read one frame (B, V) of the utterances ``rows``."""
        if len(rows) == 0:
            return
        every = len(rows) == len(frame)
        p = state.prefixes if every else state.prefixes.rows(rows)
        lp = (frame if every else frame[rows]).astype(np.float64)
        times = state.frames[rows]
        p = self._extend(p, lp, times) if extend else stay(p, lp)[0]
        if every:
            state.prefixes = p
        else:
            state.prefixes.put(rows, p)
        state.tokens[rows, times] = p.last
        state.parents[rows, times] = p.before
        state.peaks[rows, times] = p.peak
        state.frames[rows] += 1

    def _extend(self, p: Prefixes, lp: Floats, times: Integers) -> Prefixes:
        """Return the best prefixes after a frame (B, V)."""
        batch, beam = p.last.shape
        tokens = self._tokens(lp)
        stayed, higher = stay(p, lp)
        merges, rerouted = merge(p, stayed, lp)
        scores = extensions(p, merges, lp, tokens)
        scores += self._extras(p.lm, p.length + 1)[:, :, None]
        if self.lm:
            asked = np.repeat(tokens, beam, axis=0)
            lm = self.lm.score(p.lm_state.reshape(-1), asked).reshape(batch, beam, -1)
            scores += self.config.lm_weight * lm
        choice = choose(stayed.total() + self._extras(p.lm, p.length), scores)
        kept = follow(p, stayed, higher | rerouted, choice, lp, tokens, times)
        if self.lm:
            chosen = np.nonzero(choice.extends)
            row, source = chosen[0], choice.source[chosen]
            kept.lm[chosen] += lm[row, source, choice.column[chosen]]
            kept.lm_state[chosen] = self.lm.advance(p.lm_state[row, source], kept.last[chosen])
        return kept

    def _tokens(self, lp: Floats) -> Integers:
        """Return the tokens (B, M) that may extend a prefix in this frame."""
        count = lp.shape[1] - 1
        if count <= self.config.token_beam:
            return np.broadcast_to(np.arange(1, count + 1), (len(lp), count))
        keep = self.config.token_beam
        return np.sort(np.argpartition(lp[:, 1:], -keep, axis=1)[:, -keep:] + 1, axis=1)

    def _extras(self, lm: Floats, length: Integers) -> Floats:
        return self.config.length_bonus * length + (self.config.lm_weight if self.lm else 0.0) * lm

    def _hypothesis(
        self, state: BeamState, utterance: int, place: int, score: float, ctc: float, lm: float
    ) -> Hypothesis:
        tokens, times, peaks = state.trace(utterance, place)
        confidences = tuple(float(c) for c in np.exp(peaks))
        return Hypothesis(tuple(tokens), score, ctc, lm, None, tuple(times), confidences)
