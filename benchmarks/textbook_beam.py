"""A CTC prefix beam search as textbooks write it: dictionaries, and a loop over prefixes and tokens.

A prefix that is kept may always take a blank or its last token again, and is extended by the ``token_beam`` most
probable tokens of the frame. :class:`raysr.decode.prefix_beam.PrefixBeam` does the same but for two things: it
skips frames that are sure to be blank, and joins a prefix to its kept parent by a token that is not among those.
"""

import math

import numpy as np
from numpy.typing import NDArray

from raysr.decode.hypothesis import BLANK
from raysr.decode.language_model import LanguageModel

Prefix = tuple[int, ...]
Ends = tuple[float, float]  # log-probability of the alignments that end in a blank, in the last token
NEVER = -math.inf
NOT_YET: Ends = (NEVER, NEVER)


class TextbookBeam:
    """The search over one utterance at a time; the language model's answers are kept as lists once asked for."""

    def __init__(
        self, beam: int, token_beam: int, lm: LanguageModel | None = None, lm_weight: float = 0.0
    ) -> None:
        self.beam, self.token_beam = beam, token_beam
        self.lm, self.lm_weight = lm, lm_weight
        self._rows: dict[int, list[float]] = {}

    def decode(self, log_probs: NDArray[np.float32]) -> tuple[Prefix, float]:
        """Return the best prefix of natural-log posteriors (T, V), and its score with the end of the sentence."""
        kept: dict[Prefix, Ends] = {(): (0.0, NEVER)}
        said: dict[Prefix, float] = {(): 0.0}  # by the language model, weighted
        states: dict[Prefix, int] = {(): self.lm.start() if self.lm else 0}
        for frame in log_probs:
            likely = (np.argsort(-frame[1:], kind="stable")[: self.token_beam] + 1).tolist()
            grown = self._grow(kept, said, states, frame.tolist(), likely)
            best = sorted(grown, key=lambda p: log_add(*grown[p]) + said[p], reverse=True)[: self.beam]
            kept = {prefix: grown[prefix] for prefix in best}
            said = {prefix: said[prefix] for prefix in best}
            states = {p: states[p] if p in states else self._advance(states[p[:-1]], p[-1]) for p in best}
        totals = {p: log_add(*ends) + said[p] + self._end(states[p]) for p, ends in kept.items()}
        found = max(totals, key=totals.__getitem__)
        return found, totals[found]

    def _grow(
        self,
        kept: dict[Prefix, Ends],
        said: dict[Prefix, float],
        states: dict[Prefix, int],
        frame: list[float],
        likely: list[int],
    ) -> dict[Prefix, Ends]:
        """Return every prefix that a frame makes of those kept, and put into ``said`` what is new."""
        grown: dict[Prefix, Ends] = {}
        for prefix, (blank, token) in kept.items():
            either, last = log_add(blank, token), prefix[-1] if prefix else BLANK
            on_blank, on_token = grown.get(prefix, NOT_YET)
            grown[prefix] = (
                log_add(on_blank, either + frame[BLANK]),
                log_add(on_token, token + frame[last]) if prefix else on_token,
            )
            row = self._row(states[prefix])
            for t in likely:
                longer = (*prefix, t)
                on_blank, on_token = grown.get(longer, NOT_YET)
                grown[longer] = on_blank, log_add(on_token, (blank if t == last else either) + frame[t])
                if longer not in said:
                    said[longer] = said[prefix] + (self.lm_weight * row[t] if row else 0.0)
        return grown

    def _row(self, state: int) -> list[float]:
        """Return the language model's log-probability of every token; nothing without a model."""
        if self.lm is None:
            return []
        if state not in self._rows:
            self._rows[state] = self.lm.score(np.array([state]))[0].tolist()
        return self._rows[state]

    def _advance(self, state: int, token: int) -> int:
        return int(self.lm.advance(np.array([state]), np.array([token]))[0]) if self.lm else 0

    def _end(self, state: int) -> float:
        return self.lm_weight * float(self.lm.eos(np.array([state]))[0]) if self.lm else 0.0


def log_add(a: float, b: float) -> float:
    """Return log(exp(a) + exp(b))."""
    if a < b:
        a, b = b, a
    return a if b == NEVER else a + math.log1p(math.exp(b - a))
