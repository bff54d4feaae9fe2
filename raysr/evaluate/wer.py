"""Word and character error counts: one normaliser for both sides, aligned by jiwer, adding up."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jiwer

from raysr.text.normalise import normalise


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """How a hypothesis differs from its reference, in words or characters; counts of several add up."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference(self) -> int:
        """The length of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float | None:
        """Errors per reference word (or character), 0.25 being 25%; None where the reference is empty."""
        return self.errors / self.reference if self.reference else None


@dataclass(frozen=True, slots=True)
class Score:
    """One utterance's normalised reference and hypothesis, and how they differ."""

    id: str
    reference: str
    hypothesis: str
    words: ErrorCounts
    characters: ErrorCounts


def score(ids: Sequence[str], references: Sequence[str], hypotheses: Sequence[str]) -> list[Score]:
    """Align every hypothesis with its reference, both normalised alike first."""
    if not ids:
        return []
    expected = [normalise(text) for text in references]
    recognised = [normalise(text) for text in hypotheses]
    words = jiwer.process_words(expected, recognised)
    characters = jiwer.process_characters(expected, recognised)
    aligned = zip(words.alignments, characters.alignments, strict=True)
    return [
        Score(name, reference, hypothesis, _count(word_chunks), _count(character_chunks))
        for name, reference, hypothesis, (word_chunks, character_chunks) in zip(
            ids, expected, recognised, aligned, strict=True
        )
    ]


def total(counts: Iterable[ErrorCounts]) -> ErrorCounts:
    """Pool counts over utterances, so that a rate weighs every reference word alike."""
    return sum(counts, ErrorCounts())


def by_tag(
    scores: Iterable[Score], tags: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, ErrorCounts]]:
    """Pool word counts by every value of every tag: ``{"engine": {"flite": …}}``.

    ``tags`` maps an utterance's id to its tags; an utterance without a tag counts in none of its groups.
    """
    groups: dict[str, dict[str, ErrorCounts]] = {}
    for row in scores:
        for tag, value in tags.get(row.id, {}).items():
            group = groups.setdefault(tag, {})
            group[value] = group.get(value, ErrorCounts()) + row.words
    return groups


def _count(chunks: Iterable[Any]) -> ErrorCounts:
    lengths = {"equal": 0, "substitute": 0, "delete": 0, "insert": 0}
    for chunk in chunks:
        lengths[chunk.type] += max(
            chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
        )
    return ErrorCounts(lengths["equal"], lengths["substitute"], lengths["delete"], lengths["insert"])
