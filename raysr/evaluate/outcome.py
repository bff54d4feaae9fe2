"""What a method made of a test set, and all that is told of it: error rates, intervals, confidences, lateness."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import numpy as np

from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError
from raysr.evaluate.alignment import Costs, Pair, align, count
from raysr.evaluate.bootstrap import MANY, Interval, quick_interval, wer_interval
from raysr.evaluate.calibration import right_words
from raysr.evaluate.evaluate import Recognised, scored
from raysr.evaluate.mixed import mixed_counts
from raysr.evaluate.rare_words import RareWords, rare_words
from raysr.evaluate.reliability import Reliability, reliability
from raysr.evaluate.significance import Comparison, by_unit, compare
from raysr.evaluate.wer import ErrorCounts, Score, total
from raysr.text.normalise import normalise


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late a stream's text was, by kind in seconds, and how many of its words were taken back."""

    seconds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    taken_back: int = 0


class Quantiles(NamedTuple):
    """The median of seconds, and what 95% of them do not exceed."""

    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Summary:
    """All that is told of an outcome, or of a group of it; rates are fractions, times seconds.

    Attributes:
        name: of the set, and of the group.
        method: how it was recognised.
        utterances: how many, and how many of them with errors.
        seconds: of audio.
        words, characters, mixed: error counts; ``mixed`` in characters of scripts without spaces, words of others.
        interval: of the WER; None without a word, or where fewer than two units could be drawn.
        confidence: what those of the words are worth; None where none is known.
        late: by kind, of streams.
        unstable: words that streams took back by words recognised; None of what was no stream.
        real_time_factor: seconds of computing by seconds of audio; None where that was not measured.
    """

    name: str
    method: str
    utterances: int
    with_errors: int
    seconds: float
    words: ErrorCounts
    characters: ErrorCounts
    mixed: ErrorCounts
    interval: Interval | None
    confidence: Reliability | None
    late: Mapping[str, Quantiles]
    unstable: float | None
    real_time_factor: float | None

    def as_json(self) -> dict[str, Any]:
        """Return it for programs; what is not known is null."""
        sure, interval = self.confidence, self.interval
        return {
            "set": self.name,
            "method": self.method,
            "utterances": self.utterances,
            "utterances_with_errors": self.with_errors,
            "seconds": round(self.seconds, 3),
            "wer": self.words.rate,
            "interval": None if interval is None else [interval.low, interval.high],
            "words": self.words.reference,
            "substitutions": self.words.substitutions,
            "deletions": self.words.deletions,
            "insertions": self.words.insertions,
            "cer": self.characters.rate,
            "mer": self.mixed.rate,
            "real_time_factor": self.real_time_factor,
            "confidence": None
            if sure is None
            else {
                "calibration_error": sure.calibration_error,
                "normalised_cross_entropy": sure.cross_entropy,
                "brier": sure.brier,
                "area": sure.area,
                "bins": [list(part) for part in sure.bins],
            },
            "late": {what: found._asdict() for what, found in self.late.items()},
            "unstable": self.unstable,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """A set by a method: utterances, what they were recognised as, and their scores, each in the same order.

    Attributes:
        name: of the set.
        method: how it was recognised.
        rows: scores of normalised texts, words by ``costs``.
        costs: that words were aligned by.
        computing: seconds it took; None where the texts came from elsewhere.
        lateness: of streams, for each utterance.
    """

    name: str
    method: str
    utterances: Sequence[Utterance]
    recognised: Sequence[Recognised]
    rows: Sequence[Score]
    costs: Costs = "levenshtein"
    computing: float | None = None
    lateness: Sequence[Lateness] = ()

    @classmethod
    def of(
        cls,
        name: str,
        method: str,
        utterances: Sequence[Utterance],
        recognised: Sequence[Recognised],
        costs: Costs = "levenshtein",
        computing: float | None = None,
        lateness: Sequence[Lateness] = (),
    ) -> Self:
        """Score what was recognised; raises CorpusError for an utterance without a text."""
        rows = scored(utterances, recognised).rows
        if costs != "levenshtein":
            rows = tuple(replace(row, words=count(pairs(row, costs))) for row in rows)
        return cls(name, method, utterances, recognised, rows, costs, computing, lateness)

    @property
    def words(self) -> ErrorCounts:
        return total(row.words for row in self.rows)

    @property
    def characters(self) -> ErrorCounts:
        return total(row.characters for row in self.rows)

    def interval(self, units: Sequence[str] | None = None) -> Interval | None:
        """Return the WER with its 95% interval; None without a word, or with fewer than two units to draw.

        Of more than :data:`raysr.evaluate.bootstrap.MANY` units it is the normal one, otherwise the bootstrap's.
        """
        errors, lengths = (by_unit(column, units) for column in self._columns())
        if len(lengths) < 2 or not lengths.sum():
            return None
        return quick_interval(errors, lengths) if len(lengths) > MANY else wer_interval(errors, lengths)

    def against(self, other: "Outcome", units: Sequence[str] | None = None) -> Comparison | None:
        """Compare with another outcome; None where there is not enough to compare, as for :meth:`interval`.

        Raises:
            CorpusError: they are not of the same utterances.
        """
        if [row.id for row in self.rows] != [row.id for row in other.rows]:
            raise CorpusError(
                f"set '{self.name}': what is compared is not of the same utterances, in the same order"
            )
        errors, lengths = self._columns()
        if not sum(lengths) or len(set(units or range(len(lengths)))) < 2:
            return None
        return compare(errors, other._columns()[0], lengths, units)

    def wanted(self, words: Collection[str]) -> RareWords:
        """Count how many of the words or names, normalised, are recognised; aligned by the fewest errors."""
        return rare_words([row.reference for row in self.rows], [row.hypothesis for row in self.rows], words)

    def groups(self, name_of: Callable[[Utterance], str]) -> dict[str, "Outcome"]:
        """Return its parts by the name of each utterance's group."""
        places: dict[str, list[int]] = {}
        for place, utterance in enumerate(self.utterances):
            places.setdefault(name_of(utterance), []).append(place)
        return {name: self._part(places[name]) for name in sorted(places, key=_in_order)}

    def summary(self, name: str | None = None, units: Sequence[str] | None = None) -> Summary:
        """Return all that is told of it, under its set's name or another one."""
        seconds = sum(utterance.duration for utterance in self.utterances)
        heard = sum(len(row.hypothesis.split()) for row in self.rows)
        return Summary(
            name=self.name if name is None else name,
            method=self.method,
            utterances=len(self.rows),
            with_errors=sum(row.words.errors > 0 for row in self.rows),
            seconds=seconds,
            words=self.words,
            characters=self.characters,
            mixed=total(mixed_counts(row, self.costs) for row in self.rows),
            interval=self.interval(units),
            confidence=self._confidence(),
            late=self._late(),
            unstable=sum(one.taken_back for one in self.lateness) / heard
            if self.lateness and heard
            else None,
            real_time_factor=self.computing / seconds if self.computing is not None and seconds else None,
        )

    def _confidence(self) -> Reliability | None:
        sure: list[float] = []
        right: list[bool] = []
        for row, one in zip(self.rows, self.recognised, strict=True):
            words = [word for word in one.words if normalise(word.text)]
            if words:
                sure += [word.confidence for word in words]
                right += right_words(row.reference, [word.text for word in words])
        return reliability(sure, right) if sure else None

    def _late(self) -> dict[str, Quantiles]:
        found: dict[str, list[float]] = {}
        for one in self.lateness:
            for what, seconds in one.seconds.items():
                found.setdefault(what, []).extend(seconds)
        return {what: _quantiles(seconds) for what, seconds in found.items()}

    def _part(self, places: Sequence[int]) -> "Outcome":
        def chosen(column: Sequence[Any]) -> list[Any]:
            return [column[place] for place in places]

        return replace(
            self,
            utterances=chosen(self.utterances),
            recognised=chosen(self.recognised),
            rows=chosen(self.rows),
            computing=None,
            lateness=chosen(self.lateness) if self.lateness else (),
        )

    def _columns(self) -> tuple[list[int], list[int]]:
        return [row.words.errors for row in self.rows], [row.words.reference for row in self.rows]


def pairs(row: Score, costs: Costs = "levenshtein") -> list[Pair]:
    """Return a score's words side by side."""
    return align(row.reference.split(), row.hypothesis.split(), costs)


def _quantiles(seconds: Sequence[float]) -> Quantiles:
    p50, p95 = np.quantile(np.asarray(seconds, np.float64), [0.5, 0.95])
    return Quantiles(round(float(p50), 4), round(float(p95), 4))


def _in_order(name: str) -> tuple[bool, float, str]:
    """Sort by the first number in a name, where there is one, "under 2 s" before "2 to 4 s"."""
    number = re.search(r"\d+(\.\d+)?", name)
    return not name.startswith("under "), float(number[0]) if number else 0.0, name
