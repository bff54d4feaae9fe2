"""Voting: how what several teachers said of an utterance becomes one label."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, model_validator
from rapidfuzz.distance.Levenshtein import distance

from raysr.config import Config
from raysr.decode.hypothesis import mean_confidence
from raysr.decode.rover import rover
from raysr.teachers.base import TeacherOutput

FLOOR = 1e-10  # of what a logarithm is taken of


class Vote(Config):
    """How a label is made; a bare name in YAML is its ``kind``.

    Attributes:
        kind: ``nearest`` takes the output nearest to what all teachers said, ``rover`` votes word by word,
            ``surest`` takes the output whose words are the surest on average, ``first`` takes the first teacher's
            and leaves the others to the filters.
        alpha: of ``rover``: the weight of votes against confidences. Confidences of different recognisers mean
            different things unless they are calibrated, so that only votes count by default.
        null_confidence: of ``rover``: how sure a teacher is of a word that it did not say.
    """

    kind: Literal["nearest", "rover", "surest", "first"] = "nearest"
    alpha: float = Field(default=1.0, ge=0, le=1)
    null_confidence: float = Field(default=0.7, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        return {"kind": data} if isinstance(data, str) else data

    def elect(self, answers: Sequence[TeacherOutput], asked: int) -> TeacherOutput | None:
        """Return the label of one utterance; None where nobody answered.

        Args:
            answers: of the teachers that did not fail, in their order.
            asked: how many teachers there are; ``rover`` believes an answer less where others had none.
        """
        if not answers:
            return None
        if self.kind == "rover" and asked > 1:
            return _by_words(answers, asked, self.alpha, self.null_confidence)
        if self.kind == "surest" and asked > 1:
            return _surest(answers)
        return _nearest(answers) if self.kind == "nearest" else answers[0]


NEAREST = Vote()


def _nearest(answers: Sequence[TeacherOutput]) -> TeacherOutput:
    """Return the answer nearest to all in character edits, the first among equals.

    With one teacher or two it is the first's, from three on two outvote the third. That is minimum Bayes risk
    over teachers that are believed alike (Goel and Byrne 2000), a whole utterance at a time.
    """
    if len(answers) < 3:
        return answers[0]
    return min(answers, key=lambda one: sum(distance(one.text, other.text) for other in answers))


def _surest(answers: Sequence[TeacherOutput]) -> TeacherOutput:
    """Return the answer with the highest mean confidence of its words, the first among equals.

    That mean is its share of right words, as far as confidences are calibrated, and a scale that all teachers
    share: its logarithm becomes the label's normalised score. An answer that has no confidences loses to all that
    have, and one without words is sure of nothing; where nobody is sure of anything the first answer stays as it is.
    """

    def sureness(answer: TeacherOutput) -> float:
        known = _word_confidences(answer)
        return sum(known) / len(known) if known else 0.0

    surest = max(answers, key=sureness)
    sure = sureness(surest)
    return replace(surest, normalised_score=math.log(max(sure, FLOOR))) if sure else surest


def _by_words(
    answers: Sequence[TeacherOutput], asked: int, alpha: float, null_confidence: float
) -> TeacherOutput:
    """Return the words elected, each with its score as confidence.

    The normalised score is the mean logarithm of the scores of all slots: a word that was left out against
    somebody's vote makes the label as doubtful as one that was put in. It has ended where all searches have.
    """
    elected = rover(
        [answer.text for answer in answers],
        [_word_confidences(answer) for answer in answers],
        alpha=alpha,
        null_confidence=null_confidence,
        voters=asked,
    )
    words = [slot for slot in elected if slot.word is not None]
    score = sum(math.log(max(slot.score, FLOOR)) for slot in elected)
    ended = [a.ended for a in answers if a.ended is not None]
    agreements = [a.ctc_attention_agreement for a in answers if a.ctc_attention_agreement is not None]
    return TeacherOutput(
        text=" ".join(str(slot.word) for slot in words),
        score=score,
        normalised_score=score / max(1, len(elected)),
        confidences=tuple(slot.score for slot in words),
        ctc_attention_agreement=sum(agreements) / len(agreements) if agreements else None,
        ended=all(ended) if ended else None,
    )


def _word_confidences(answer: TeacherOutput) -> tuple[float, ...]:
    """Return a confidence for each word: the teacher's, or the mean of its tokens' where it has no others."""
    words = len(answer.text.split())
    for known in (answer.word_confidences, answer.confidences):
        if len(known) == words:
            return known
    return (mean_confidence(answer.confidences),) * words if answer.confidences else ()
