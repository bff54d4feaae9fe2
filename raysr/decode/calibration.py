"""Word confidence that means what it says: of the words with 0.8, eight in ten are right.

What an n-best list says of a word of its best hypothesis is weighed by logistic regression, fitted on transcribed
audio (:func:`raysr.evaluate.calibration.fit`; Platt 1999). The chief witness is the word's posterior in the list
(Wessel et al. 2001, doi:10.1109/89.906002).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from raysr.config import Config
from raysr.decode.hypothesis import Hypothesis, mean_confidence
from raysr.text.tokeniser import Tokeniser

SURE = 1e-3  # probabilities nearer to 0 or 1 than this are all alike: lists are short, peaks are sharp
Floats = NDArray[np.float64]


class Calibration(Config):
    """Weights of the log-odds that a word is right; none is negative, so that more evidence never counts against.

    Belongs to the model and the decoding that it was fitted with.

    Attributes:
        bias: with no evidence at all.
        agreement: of the log-odds of the word's posterior in the n-best list.
        acoustic: of the log-odds of the geometric mean of its tokens' CTC posteriors.
        utterance: of the mean of these over the words of the hypothesis: a noisy utterance is doubtful throughout.
        length: of the logarithm of its number of tokens.
    """

    bias: float
    agreement: float = Field(ge=0)
    acoustic: float = Field(ge=0)
    utterance: float = Field(ge=0)
    length: float = Field(ge=0)

    def confidences(self, tokeniser: Tokeniser, nbest: Sequence[Hypothesis]) -> list[float]:
        """Return the probability that each word of the best hypothesis is right."""
        weights = np.array([self.agreement, self.acoustic, self.utterance, self.length])
        log_odds = evidence(tokeniser, nbest) @ weights + self.bias
        return [float(p) for p in 1 / (1 + np.exp(-log_odds))]


def evidence(tokeniser: Tokeniser, nbest: Sequence[Hypothesis]) -> Floats:
    """Return what speaks for each of the W words of the best hypothesis, (W, 4) in the order of the weights."""
    words = tokeniser.words(nbest[0].tokens)
    acoustic = [_log_odds(mean_confidence(nbest[0].confidences[word.first : word.end])) for word in words]
    utterance = sum(acoustic) / max(1, len(words))
    rows = [
        (_log_odds(posterior), heard, utterance, math.log(word.end - word.first))
        for word, posterior, heard in zip(words, word_posteriors(tokeniser, nbest), acoustic, strict=True)
    ]
    return np.array(rows, dtype=np.float64).reshape(len(rows), 4)


def word_posteriors(tokeniser: Tokeniser, nbest: Sequence[Hypothesis]) -> list[float]:
    """Return the share of the list's probability that has each word of the best hypothesis in its place.

    A hypothesis has it if it holds the same word in frames of which at least one is shared. Hypotheses are
    weighed by their scores, the language model's part at the weight of the search included.
    """
    scores = np.array([hypothesis.score for hypothesis in nbest])
    masses = np.exp(scores - scores.max())
    masses /= masses.sum()
    spans = [_spans(tokeniser, hypothesis) for hypothesis in nbest]
    return [
        float(
            sum(
                mass
                for mass, others in zip(masses, spans, strict=True)
                if any(word == text and first <= end and begin <= last for text, begin, end in others)
            )
        )
        for word, first, last in spans[0]
    ]


def _spans(tokeniser: Tokeniser, hypothesis: Hypothesis) -> list[tuple[str, int, int]]:
    """Return the words of a hypothesis with the first and the last frame of each."""
    times = hypothesis.times
    return [(w.text, times[w.first], times[w.end - 1]) for w in tokeniser.words(hypothesis.tokens)]


def _log_odds(probability: float) -> float:
    p = min(max(probability, SURE), 1 - SURE)
    return math.log(p / (1 - p))
