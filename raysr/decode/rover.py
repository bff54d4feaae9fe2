"""One transcript of several by vote, a word at a time: ROVER (Fiscus 1997, doi:10.1109/ASRU.1997.659110).

The transcripts are aligned one after the other into a word transition network: a sequence of slots, in each of
which every voter says a word or nothing, the null word. Of each slot the best scored word is taken::

    one:    we  met   -  today              slots   [we we we] [met met meet] [- up -] [today today today]
    two:    we  met   up today      ──►
    three:  we  meet  -  today              taken    we         met            -        today
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

SUBSTITUTION, GAP = 4, 3  # as in NIST's sclite: a substitution is dearer than a gap and cheaper than two
EDIT = 1 << 32  # more than all votes that an alignment can join: costs are compared first
UNKNOWN = 0.5  # confidence of a word whose voter gives none

Slot = list[str | None]
"""What each voter says at one place, in the voters' order; None is the null word."""


@dataclass(frozen=True)
class Elected:
    """What won in one slot: a word, or None for the null word, with its score in [0, 1]."""

    word: str | None
    score: float


def rover(
    texts: Sequence[str],
    confidences: Sequence[Sequence[float]] = (),
    *,
    alpha: float = 1.0,
    null_confidence: float = 0.7,
    voters: int | None = None,
) -> list[Elected]:
    """Return the winner of every slot, the null word's among them; of equals that of the first transcript.

    A word's score is ``alpha`` · (its share of the votes) + (1 - ``alpha``) · (the mean confidence of those who
    said it); the null word's confidence is ``null_confidence``.

    Args:
        texts: the transcripts, words apart by blanks.
        confidences: for each transcript one in [0, 1] for each of its words, or none at all.
        alpha: 1 counts votes alone, 0 confidences alone.
        null_confidence: how readily a word is left out; of no weight where ``alpha`` is 1.
        voters: that shares are taken of, those who said nothing at all included; None counts the transcripts.

    Raises ValueError where confidences do not fit their words.
    """
    words = [text.split() for text in texts]
    given = [list(c) for c in confidences] or [[] for _ in words]
    if any(c and len(c) != len(w) for c, w in zip(given, words, strict=True)):
        raise ValueError("a transcript needs a confidence for each of its words, or none")
    total = voters or len(words)
    cursors = [iter(c) for c in given]
    elected = []
    for slot in network(words):
        heard = [
            null_confidence if word is None else next(cursor, UNKNOWN)
            for word, cursor in zip(slot, cursors, strict=True)
        ]
        elected.append(_elect(slot, heard, alpha, total))
    return elected


def network(transcripts: Sequence[Sequence[str]]) -> list[Slot]:
    """Return the slots of transcripts that are aligned one after the other, each at the least cost.

    Reading one voter's words through the slots gives its transcript. No slot is empty.
    """
    slots: list[Slot] = [[word] for word in transcripts[0]] if transcripts else []
    for before, words in enumerate(transcripts[1:], start=1):
        merged: list[Slot] = []
        for place, word in _align(slots, words):
            merged.append([*(slots[place] if place is not None else [None] * before), word])
        slots = merged
    return slots


def _elect(slot: Slot, confidences: Sequence[float], alpha: float, voters: int) -> Elected:
    heard: dict[str | None, list[float]] = {}
    for word, confidence in zip(slot, confidences, strict=True):
        heard.setdefault(word, []).append(confidence)
    scored = [
        Elected(word, alpha * len(found) / voters + (1 - alpha) * sum(found) / len(found))
        for word, found in heard.items()
    ]
    return max(scored, key=lambda elected: elected.score)


def _align(slots: Sequence[Slot], words: Sequence[str]) -> list[tuple[int | None, str | None]]:
    """Return pairs (slot, word): a word without a slot makes one, a slot without a word gets the null word.

    Of alignments that cost the same, that on which most voters are joined, so that the last of three who says
    what the second does votes with it throughout.
    """
    counts = [Counter(slot) for slot in slots]
    best = [[GAP * EDIT * j for j in range(len(words) + 1)]]
    for count in counts:
        skipped, above = _price(count, None), best[-1]
        left = above[0] + skipped
        row = [left]
        for j, word in enumerate(words):
            joined = count.get(word)
            said = above[j] + (-joined if joined else SUBSTITUTION * EDIT)
            left = min(said, above[j + 1] + skipped, left + GAP * EDIT)
            row.append(left)
        best.append(row)
    return _trace(best, counts, words)


def _trace(
    best: Sequence[Sequence[int]], counts: Sequence[Counter[str | None]], words: Sequence[str]
) -> list[tuple[int | None, str | None]]:
    i, j = len(counts), len(words)
    path: list[tuple[int | None, str | None]] = []
    while i or j:
        if i and j and best[i][j] == best[i - 1][j - 1] + _price(counts[i - 1], words[j - 1]):
            i, j = i - 1, j - 1
            path.append((i, words[j]))
        elif i and best[i][j] == best[i - 1][j] + _price(counts[i - 1], None):
            i -= 1
            path.append((i, None))
        else:
            j -= 1
            path.append((None, words[j]))
    return path[::-1]


def _price(count: Counter[str | None], word: str | None) -> int:
    """Return what it costs to say ``word`` in a slot: an edit, or, where others said so, less than nothing."""
    joined = count[word]
    return -joined if joined else (GAP if word is None else SUBSTITUTION) * EDIT
