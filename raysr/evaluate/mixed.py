"""Mixed error rate, for speech that switches languages: characters where a script has no spaces, words elsewhere.

As is usual for code-switching, e.g. on SEAME (Lyu et al., Interspeech 2010): a Chinese character counts as much as an
English word.
"""

import unicodedata
from itertools import groupby

from raysr.evaluate.alignment import Costs, align, count
from raysr.evaluate.wer import ErrorCounts, Score
from raysr.text.scripts import SPACELESS


def units(text: str) -> list[str]:
    """Return what errors are counted in: letters, with their marks, of scripts without spaces, and other words."""
    found: list[str] = []
    for word in text.split():
        for spaceless, letters in groupby(_letters(word), lambda letter: bool(SPACELESS.match(letter))):
            run = list(letters)
            found += run if spaceless else ["".join(run)]
    return found


def mixed_counts(row: Score, costs: Costs = "levenshtein") -> ErrorCounts:
    """Count errors in :func:`units` of a score's texts; those in words where no script is without spaces."""
    if not SPACELESS.search(row.reference + row.hypothesis):
        return row.words
    return count(align(units(row.reference), units(row.hypothesis), costs))


def _letters(word: str) -> list[str]:
    found: list[str] = []
    for letter in word:
        if found and unicodedata.category(letter)[0] == "M":
            found[-1] += letter
        else:
            found.append(letter)
    return found
