"""How many of the words that matter are recognised, names above all, and what the others have paid for it."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import jiwer

Phrase = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RareWords:
    """Wanted words or names that were said and that were recognised, and errors among all others; counts add up."""

    said: int = 0
    recalled: int = 0
    claimed: int = 0
    others: int = 0
    errors: int = 0

    def __add__(self, more: "RareWords") -> "RareWords":
        return RareWords(
            self.said + more.said,
            self.recalled + more.recalled,
            self.claimed + more.claimed,
            self.others + more.others,
            self.errors + more.errors,
        )

    @property
    def recall(self) -> float | None:
        """Share of the wanted words said that were recognised in their place."""
        return self.recalled / self.said if self.said else None

    @property
    def precision(self) -> float | None:
        """Share of the wanted words recognised that were said in that place."""
        return self.recalled / self.claimed if self.claimed else None

    @property
    def other_wer(self) -> float | None:
        """Errors per word that is not wanted; whatever was put in where nothing was said is among them."""
        return self.errors / self.others if self.others else None


def rare_words(references: Sequence[str], hypotheses: Sequence[str], wanted: Collection[str]) -> RareWords:
    """Count over normalised references and hypotheses, aligned word by word.

    What is wanted may be several words long, such as a full name: it counts once, and only as a whole.
    """
    if not references:
        return RareWords()
    by_head: dict[str, list[Phrase]] = {}
    for phrase in sorted({tuple(phrase.split()) for phrase in wanted} - {()}, key=len, reverse=True):
        by_head.setdefault(phrase[0], []).append(phrase)
    aligned = jiwer.process_words(list(references), list(hypotheses))
    total = RareWords()
    for said, heard, chunks in zip(aligned.references, aligned.hypotheses, aligned.alignments, strict=True):
        right = {
            place: place + c.hyp_start_idx - c.ref_start_idx
            for c in chunks
            if c.type == "equal"
            for place in range(c.ref_start_idx, c.ref_end_idx)
        }
        names, claims = list(_places(said, by_head)), set(_places(heard, by_head))
        covered = {place for name in names for place in name}
        put_in = sum(c.hyp_end_idx - c.hyp_start_idx for c in chunks if c.type == "insert")
        total += RareWords(
            said=len(names),
            recalled=sum(_heard_as(name, right) in claims for name in names),
            claimed=len(claims),
            others=len(said) - len(covered),
            errors=len(said) - len(covered | right.keys()) + put_in,
        )
    return total


def seldom(texts: Iterable[str], most: int, among: Iterable[str]) -> set[str]:
    """Return the words of ``among`` that are said at most so many times in ``texts``; all of them normalised."""
    times = Counter(word for text in texts for word in text.split())
    return {word for text in among for word in text.split() if times[word] <= most}


def _places(words: Sequence[str], by_head: Mapping[str, Sequence[Phrase]]) -> Iterator[range]:
    """Yield where phrases are, from the left, the longest first, none within another."""
    place = 0
    while place < len(words):
        found = (p for p in by_head.get(words[place], ()) if tuple(words[place : place + len(p)]) == p)
        length = len(next(found, ()))
        if length:
            yield range(place, place + length)
        place += max(1, length)


def _heard_as(name: range, right: Mapping[int, int]) -> range | None:
    """Return where the words of a name are in what was heard; None unless all were, with nothing between them."""
    places = [right.get(place) for place in name]
    first = places[0]
    whole = first is not None and places == list(range(first, first + len(name)))
    return range(first, first + len(name)) if whole and first is not None else None
