"""A hypothesis: one transcript of an utterance, the parts of its score, and what is known of each token."""

import math
from collections.abc import Collection
from dataclasses import dataclass

BLANK = 0
EOS = 2


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A token sequence and its scores; every score is a natural logarithm, unweighted unless it is ``score``.

    Attributes:
        tokens: SentencePiece ids, without blank and eos.
        score: the weighted sum that the hypotheses of an utterance are ranked by.
        ctc: log p(tokens | audio), summed over the alignments that the search kept, all of them in a one-pass
            search; 0 without a CTC head.
        lm: log p(tokens) of the language model, eos included once the utterance is over; 0 without a model.
        attention: log p(tokens, eos | audio) of the attention decoder; None when it was not asked.
        times: for each token the encoder frame, from 0, at which its posterior peaks on the best alignment.
        confidences: for each token the CTC posterior at that frame, in [0, 1].
        bias: what boosted phrases are worth to it.
        ended: whether eos came before the most tokens that the search allows; None of a search frame by frame.
    """

    tokens: tuple[int, ...]
    score: float
    ctc: float
    lm: float
    attention: float | None
    times: tuple[int, ...]
    confidences: tuple[float, ...]
    bias: float = 0.0
    ended: bool | None = None

    @property
    def normalised_score(self) -> float:
        """The score per token (per character with a character tokeniser), so that lengths can be compared."""
        return self.score / max(1, len(self.tokens))

    @property
    def confidence(self) -> float:
        """The geometric mean of the token confidences; 1 for an empty hypothesis."""
        return mean_confidence(self.confidences)


def mean_confidence(confidences: tuple[float, ...]) -> float:
    """Return the geometric mean, to which one doubtful token counts more than to the arithmetic mean."""
    if not confidences:
        return 1.0
    return math.exp(sum(math.log(max(c, 1e-10)) for c in confidences) / len(confidences))


EMPTY = Hypothesis(tokens=(), score=0.0, ctc=0.0, lm=0.0, attention=None, times=(), confidences=())


def common_prefix(sequences: Collection[tuple[int, ...]] | Collection[list[int]]) -> tuple[int, ...]:
    """Return the tokens that all of one or more sequences begin with."""
    first, last = min(map(tuple, sequences)), max(map(tuple, sequences))
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: min(same, len(last))]
