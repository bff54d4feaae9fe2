"""Numbers that labels can be ranked by: of each, larger is better, and None is unknown.

Sources: length-normalised score after Kahn et al. 2019 (arXiv:1909.09116); agreement with and without a language model
after the noisy student recipe of WeNet; agreement of several recognisers as compared in arXiv:2506.04981.
"""

from collections.abc import Callable, Mapping
from typing import Literal

from rapidfuzz.distance.Levenshtein import distance

from raysr.decode.hypothesis import mean_confidence
from raysr.ipl.predictions import Prediction

Name = Literal["score", "confidence", "min_confidence", "heads", "teachers", "lm"]


def score(prediction: Prediction) -> float | None:
    """Return the length-normalised score of the label, a natural logarithm."""
    return prediction.label.normalised_score if prediction.label else None


def confidence(prediction: Prediction) -> float | None:
    """Return the geometric mean of the label's confidences, in [0, 1]."""
    known = prediction.label is not None and prediction.label.confidences
    return mean_confidence(known) if known else None


def min_confidence(prediction: Prediction) -> float | None:
    """Return the least of the label's confidences: one wrong word is one sure error."""
    known = prediction.label is not None and prediction.label.confidences
    return min(known) if known else None


def heads(prediction: Prediction) -> float | None:
    """Return 1 - word error rate between the readings of the CTC and attention heads, at least 0."""
    return prediction.label.ctc_attention_agreement if prediction.label else None


def teachers(prediction: Prediction) -> float | None:
    """Return 1 - word error rate of the second nearest teacher's text against the label; it may be below 0.

    The nearest is the teacher that the label is of, or that comes closest to what all were made into by vote.
    """
    label, answers = prediction.label, prediction.answers
    if label is None or len(answers) < 2:
        return None
    words = label.text.split()
    edits = sorted(distance(words, answer.text.split()) for answer in answers)
    return 1 - edits[1] / len(words) if words else 1.0 - bool(edits[1])


def lm(prediction: Prediction) -> float | None:
    """Return 1 - character error rate of CTC's reading without a language model against the label.

    A label that several teachers made has no such reading of its own: then it is their nearest one.
    """
    label = prediction.label
    if label is None:
        return None
    own = label.text_without_lm
    readings = [own] if own is not None else [a.text_without_lm for a in prediction.answers]
    known = [reading for reading in readings if reading is not None]
    if not known:
        return None
    return 1 - min(distance(label.text, reading) for reading in known) / max(1, len(label.text))


QUANTITIES: Mapping[str, Callable[[Prediction], float | None]] = {
    f.__name__: f for f in (score, confidence, min_confidence, heads, teachers, lm)
}
