"""Fitting the calibration of word confidences: logistic regression on recognised words that are right or wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import jiwer
import numpy as np
from numpy.typing import NDArray

from raysr.decode.calibration import Calibration, evidence
from raysr.decode.hypothesis import Hypothesis
from raysr.text.normalise import normalise
from raysr.text.tokeniser import Tokeniser

MIN_WORDS = 100
RIDGE = 1.0
NEWTON_STEPS = 30
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class JudgedWords:
    """The words of best hypotheses: what speaks for each (W, 4), and which are right (W,)."""

    evidence: Floats
    right: NDArray[np.bool_]


def judge(
    tokeniser: Tokeniser, nbest: Sequence[Sequence[Hypothesis]], references: Sequence[str]
) -> JudgedWords:
    """Compare the best hypothesis of every utterance with its transcript."""
    heard = [[word.text for word in tokeniser.words(hypotheses[0].tokens)] for hypotheses in nbest]
    found = [right_words(*pair) for pair in zip(references, heard, strict=True)]
    return JudgedWords(
        np.concatenate([np.zeros((0, 4)), *(evidence(tokeniser, hypotheses) for hypotheses in nbest)]),
        np.array([right for row in found for right in row], dtype=bool),
    )


def right_words(reference: str, words: Sequence[str]) -> list[bool]:
    """Return which of the recognised words the alignment of fewest errors matches with the reference.

    Reference and words are normalised, as for the word error rate; a word that becomes several is right if all are.
    """
    spelt = [normalise(word).split() for word in words]
    hits = iter(_hits(normalise(reference), " ".join(part for word in spelt for part in word)))
    return [all(list(islice(hits, len(word)))) for word in spelt]


def _hits(reference: str, hypothesis: str) -> list[bool]:
    hits = [False] * len(hypothesis.split())
    for chunk in jiwer.process_words([reference], [hypothesis]).alignments[0]:
        if chunk.type == "equal":
            hits[chunk.hyp_start_idx : chunk.hyp_end_idx] = [True] * (chunk.hyp_end_idx - chunk.hyp_start_idx)
    return hits


def fit(judged: JudgedWords) -> Calibration | None:
    """Return the most probable calibration; None where fewer than 100 words were recognised.

    Targets are Platt's (1999), just inside 0 and 1, and the weights have a Gaussian prior of variance 1: what few
    words cannot tell stays moderate. Evidence with a negative weight is left out, the most negative first.
    """
    if len(judged.right) < MIN_WORDS:
        return None
    right, wrong = int(judged.right.sum()), int((~judged.right).sum())
    targets = np.where(judged.right, (right + 1) / (right + 2), 1 / (wrong + 2))
    used = list(range(judged.evidence.shape[1]))
    while True:
        *weights, bias = _maximum(judged.evidence[:, used], targets)
        if not used or min(weights) >= 0:
            break
        del used[int(np.argmin(weights))]
    chosen = np.zeros(judged.evidence.shape[1])
    chosen[used] = weights
    agreement, acoustic, utterance, length = (round(float(w), 4) for w in chosen)
    return Calibration(
        bias=round(float(bias), 4), agreement=agreement, acoustic=acoustic, utterance=utterance, length=length
    )


def _maximum(inputs: Floats, targets: Floats) -> Floats:
    """Return weights (F + 1,), the bias last, by Newton's method on a strictly concave function."""
    columns = np.hstack([inputs, np.ones((len(inputs), 1))])
    weights = np.zeros(columns.shape[1])
    prior = np.diag([RIDGE] * inputs.shape[1] + [0.0])
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-columns @ weights))
        gradient = columns.T @ (targets - p) - prior @ weights
        curvature = (columns.T * (p * (1 - p))) @ columns + prior
        weights = weights + np.linalg.solve(curvature, gradient)
    return weights
