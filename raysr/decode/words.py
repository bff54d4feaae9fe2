"""From tokens to words with times and confidences."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from raysr.decode.calibration import Calibration
from raysr.decode.hypothesis import Hypothesis, mean_confidence
from raysr.text.tokeniser import Tokeniser


@dataclass(frozen=True, slots=True)
class Word:
    """A recognised word: start and end in seconds, confidence in [0, 1]."""

    text: str
    start: float
    end: float
    confidence: float


def text_of(tokeniser: Tokeniser, tokens: tuple[int, ...]) -> str:
    """Return the text of ``tokens``, its words apart by one space."""
    return " ".join(tokeniser.decode(list(tokens)).split())


def words_of(
    tokeniser: Tokeniser, hypothesis: Hypothesis, frame_seconds: float, offset: float = 0.0
) -> tuple[Word, ...]:
    """Return the words of a hypothesis whose frame 0 begins at ``offset`` seconds.

    A word lasts from the frame of its first to the end of that of its last token; its confidence is the
    geometric mean of theirs.
    """
    return tuple(
        Word(
            text=word.text,
            start=offset + hypothesis.times[word.first] * frame_seconds,
            end=offset + (hypothesis.times[word.end - 1] + 1) * frame_seconds,
            confidence=mean_confidence(hypothesis.confidences[word.first : word.end]),
        )
        for word in tokeniser.words(hypothesis.tokens)
    )


def best_words(
    tokeniser: Tokeniser,
    nbest: Sequence[Hypothesis],
    frame_seconds: float,
    offset: float = 0.0,
    calibration: Calibration | None = None,
) -> tuple[Word, ...]:
    """Return the words of the first of ``nbest``; with a calibration, confidence is the chance of being right."""
    words = words_of(tokeniser, nbest[0], frame_seconds, offset)
    if calibration is None:
        return words
    confidences = calibration.confidences(tokeniser, nbest)
    return tuple(replace(word, confidence=c) for word, c in zip(words, confidences, strict=True))


def utterance_confidence(words: Sequence[Word]) -> float:
    """Return the mean confidence of the words: the share expected to be right. 0 without words."""
    return sum(word.confidence for word in words) / len(words) if words else 0.0
