"""What other recognisers say of their own words, brought to the scores of a :class:`TeacherOutput`."""

import math
from collections.abc import Iterable, Sequence

from raysr.text.normalise import normalise


def confidences_of(text: str, words: Sequence[tuple[str, float]]) -> tuple[float, ...]:
    """Return one confidence for each word of the normalised ``text``, or none where the words do not add up to it.

    ``words`` are as the recogniser wrote them, each with its probability: "1,000" has one that is then that of
    "one" and of "thousand".
    """
    spelt = [(normalise(word).split(), probability) for word, probability in words]
    if [word for parts, _ in spelt for word in parts] != text.split():
        return ()
    return tuple(min(1.0, max(0.0, p)) for parts, p in spelt for _ in parts)


def words_of(tokens: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    """Join tokens, each with its log probability, to words, each with the geometric mean of its tokens' probabilities.

    A token that begins with white space begins a word.
    """
    groups: list[tuple[str, list[float]]] = []
    for text, logprob in tokens:
        if groups and text[:1].strip():
            word, logprobs = groups[-1]
            groups[-1] = (word + text, [*logprobs, logprob])
        else:
            groups.append((text, [logprob]))
    return [(word, math.exp(sum(logprobs) / len(logprobs))) for word, logprobs in groups]


def weighted_mean(pairs: Iterable[tuple[float, float]]) -> float | None:
    """Return the mean of (value, weight) pairs; None without any weight."""
    found = list(pairs)
    total = sum(weight for _, weight in found)
    return sum(value * weight for value, weight in found) / total if total > 0 else None
