"""Which hypothesis of a teacher a student is to learn where the reference is known."""

from collections.abc import Sequence

from rapidfuzz.distance.Levenshtein import distance


def nearest(reference: str, hypotheses: Sequence[str], scores: Sequence[float]) -> int:
    """Return which hypothesis has the fewest word errors against the reference; of equals the best scored.

    Sequence-level interpolation (Kim & Rush 2016, arXiv:1606.07947): a text close to the reference that the
    teacher finds likely.

    Raises ValueError for an empty n-best list.
    """
    words = reference.split()
    ranked = [
        (distance(words, hypothesis.split()), -score)
        for hypothesis, score in zip(hypotheses, scores, strict=True)
    ]
    return min(range(len(ranked)), key=ranked.__getitem__)
