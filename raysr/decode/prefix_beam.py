"""CTC prefix beam search with shallow fusion and boosted phrases, utterance by utterance in compiled code.

The search of Hannun et al. (2014, arXiv:1408.2873). Every frame is treated alike wherever a call ends, hence any split
of the frames gives the same result.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from raysr.config import Config
from raysr.decode.backoff import Automaton
from raysr.decode.beam_kernel import likely_all, read, read_frame
from raysr.decode.beam_records import ANSWERED, NGRAM, NO_LM, Scratch, Settings
from raysr.decode.beam_state import BeamState, Integers, total
from raysr.decode.beam_trace import beginning_with, shared
from raysr.decode.bias import ContextBias, PhraseTables
from raysr.decode.hypothesis import BLANK, Hypothesis
from raysr.decode.language_model import LanguageModel
from raysr.decode.ngram import Ngram


class PrefixBeamConfig(Config):
    """Options of the search.

    Attributes:
        beam: prefixes kept after each frame; with expected phrases as many again, so that those which begin like
            a phrase take the place of no other.
        token_beam: tokens that may extend a prefix in one frame, the most probable ones; a vocabulary no
            larger than this is searched in full.
        blank_skip: in a frame whose blank is more probable than this no prefix is extended; prefixes still
            take their blank or repeat, so that no more than the mass 1 - blank_skip is lost. 1 never skips.
        lm_weight: weight of the language model's log-probability.
        length_bonus: added for every token, against the language model's liking for short sentences.
        phrase_lm_share: share of the language model's cost that is repaid within an expected phrase, since the
            model knows nothing of what the request makes likely.
    """

    beam: int = Field(default=16, ge=1)
    token_beam: int = Field(default=40, ge=1)
    blank_skip: float = Field(default=0.999, gt=0, le=1)
    lm_weight: float = Field(default=0.5, ge=0)
    length_bonus: float = 0.0
    phrase_lm_share: float = Field(default=0.6, ge=0, le=1)


class PrefixBeam:
    """The search; all that changes is in the :class:`BeamState` that is handed through.

    Args:
        config: see there.
        lm: a language model. A token n-gram is looked up from within the search; others are asked once a frame.
        bias: boosted phrases of the utterances of a batch, which then has as many.

    Attributes:
        places: the most prefixes that are kept of an utterance.
    """

    def __init__(
        self, config: PrefixBeamConfig, lm: LanguageModel | None = None, bias: ContextBias | None = None
    ) -> None:
        self.config = config
        self.lm = lm
        self.bias = bias
        self.places = config.beam * (2 if bias else 1)
        self._settings = Settings(
            skip_above=float(np.log(config.blank_skip)) if config.blank_skip < 1 else float("inf"),
            lm=NO_LM if lm is None else NGRAM if isinstance(lm, Ngram) else ANSWERED,
            lm_weight=config.lm_weight,
            length_bonus=config.length_bonus,
            phrase_lm_share=config.phrase_lm_share,
            ngram=lm.automaton if isinstance(lm, Ngram) else Automaton.empty(),
            phrases=bias.tables if bias else PhraseTables.empty(),
        )

    def start(self, batch: int) -> BeamState:
        """Return the state before the first frame of ``batch`` utterances."""
        starts = self.bias.starts if self.bias else np.zeros(batch, np.int64)
        return BeamState.new(batch, self.places, self.lm.start() if self.lm else 0, starts)

    def advance(self, state: BeamState, log_probs: Tensor, lengths: Tensor | None = None) -> BeamState:
        """Read frames: natural-log posteriors (B, t, V), of which the first ``lengths`` (B,) are valid.

        ``state`` is changed in place and returned.
        """
        frames = np.ascontiguousarray(log_probs.detach().float().cpu().numpy())
        counts = np.full(len(frames), frames.shape[1]) if lengths is None else lengths.cpu().numpy()
        state.reserve(int(counts.max(initial=0)))
        room = Scratch.new(self.config.beam, self.places, self.config.token_beam, frames.shape[2])
        if self._settings.lm == ANSWERED:
            for t in range(int(counts.max(initial=0))):
                self._read_asking(state, frames[:, t], np.flatnonzero(counts > t), room)
        else:
            read(state.prefixes, state.alive, state.frames, state.nodes, frames, counts, self._settings, room)
        return state

    def nbest(self, state: BeamState, n: int, final: bool) -> list[list[Hypothesis]]:
        """Return up to ``n`` hypotheses an utterance, best first.

        ``final`` adds the language model's eos, and takes back what phrases that were not completed got.
        """
        return [self._nbest(state, b, n, final) for b in range(len(state.alive))]

    def stable_prefix(self, state: BeamState) -> list[tuple[int, ...]]:
        """Return for every utterance the tokens all kept prefixes begin with; no later frame changes them."""
        return [tuple(shared(state.kept(b), nodes).tolist()) for b, nodes in enumerate(state.nodes)]

    def settle(self, state: BeamState, frame: int) -> None:
        """Drop the prefixes that differ from the best one in a token it put before ``frame``.

        Without this one doubtful token stays open as long as everything after it is sure, since the beam then
        holds nothing but its alternatives.
        """
        for b, (best,) in enumerate(self.nbest(state, 1, final=False)):
            settled = np.asarray(best.tokens[: sum(time < frame for time in best.times)], np.int64)
            state.keep(b, beginning_with(state.kept(b), state.nodes[b], settled))

    def decode(self, log_probs: Tensor, lengths: Tensor, n: int | None = None) -> list[list[Hypothesis]]:
        """Return the ``n`` best hypotheses (all that are kept by default) of posteriors (B, T, V)."""
        state = self.advance(self.start(len(log_probs)), log_probs, lengths)
        return self.nbest(state, self.places if n is None else n, final=True)

    def _read_asking(
        self, state: BeamState, frame: NDArray[np.float32], rows: Integers, room: Scratch
    ) -> None:
        """Read one frame (B, V) of the utterances ``rows``, with the answers of a model that is asked from here."""
        assert self.lm is not None
        tokens = likely_all(frame[rows], len(room.tokens))
        asked = frame[rows, BLANK] <= self._settings.skip_above
        kept = np.arange(self.places) < np.where(asked, state.alive[rows], 0)[:, None]  # (R, beam)
        states = state.prefixes["lm_state"][rows][kept]
        answers = self.lm.score(states, np.repeat(tokens, kept.sum(axis=1), axis=0))
        extended = read_frame(
            state.prefixes,
            state.alive,
            state.frames,
            state.nodes,
            frame,
            rows,
            tokens,
            answers,
            self._settings,
            room,
        )
        p = state.prefixes[extended]
        state.prefixes["lm_state"][extended] = self.lm.advance(p["lm_state"], p["last"].astype(np.int64))

    def _nbest(self, state: BeamState, utterance: int, n: int, final: bool) -> list[Hypothesis]:
        p = state.kept(utterance)
        ctc, lm, bias = total(p), p["lm"], p["bias"]
        if final and self.lm:
            lm = lm + self.lm.eos(p["lm_state"])
        if final and self.bias:
            owed = np.where(self.bias.ends(p["bias_state"]), 0.0, p["owed"])
            bias = bias + self.bias.eos(p["bias_state"]) - owed
        score = ctc + self.config.lm_weight * lm + bias + self.config.length_bonus * p["length"]
        found = []
        for k in np.argsort(-score, kind="stable")[:n].tolist():
            tokens, times, peaks = state.trace(utterance, k)
            found.append(
                Hypothesis(
                    tokens=tuple(tokens),
                    score=float(score[k]),
                    ctc=float(ctc[k]),
                    lm=float(lm[k]),
                    attention=None,
                    times=tuple(times),
                    confidences=tuple(float(c) for c in np.exp(peaks)),
                    bias=float(bias[k]),
                )
            )
        return found
