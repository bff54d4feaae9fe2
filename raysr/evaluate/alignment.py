"""Words of a reference and a hypothesis side by side: by fewest errors, or by NIST's costs; and a form to read."""

from collections.abc import Iterable, Sequence
from typing import Literal

import jiwer
import numpy as np
from rich.cells import cell_len

from raysr.evaluate.wer import ErrorCounts

Costs = Literal["levenshtein", "nist"]
"""``levenshtein``: the fewest errors, as jiwer counts. ``nist``: those of sclite, where a substitution costs 4, a word
left out or put in 3, so that a right word is now and then worth an error more."""
Pair = tuple[str | None, str | None]
"""A word of the reference and what stands for it; None where one of them has no word."""

_SUBSTITUTION, _GAP = 4, 3


def align(reference: Sequence[str], hypothesis: Sequence[str], costs: Costs = "levenshtein") -> list[Pair]:
    """Return all words of both in order, those that belong together in one pair.

    With ``nist`` the pairs are sclite's, also where several alignments cost the same (SCTK, ``net_dp.c``).
    """
    return _cheapest(reference, hypothesis) if costs == "nist" else _fewest(reference, hypothesis)


def count(pairs: Iterable[Pair]) -> ErrorCounts:
    """Return what the pairs are: right, substituted, left out or put in."""
    hits = substitutions = deletions = insertions = 0
    for said, heard in pairs:
        if said is None:
            insertions += 1
        elif heard is None:
            deletions += 1
        elif said == heard:
            hits += 1
        else:
            substitutions += 1
    return ErrorCounts(hits, substitutions, deletions, insertions)


def readable(name: str, pairs: Sequence[Pair]) -> str:
    """Return an alignment as sclite prints one: errors in capitals, stars for missing words, marks below."""
    counts = count(pairs)
    columns = [_column(*pair) for pair in pairs]
    widths = [max(map(cell_len, column)) for column in columns]
    rows = [
        " ".join(
            cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in (zip(*columns, strict=True) if columns else ((), (), ()))
    ]
    numbers = f"{counts.hits} {counts.substitutions} {counts.deletions} {counts.insertions}"
    lines = (
        f"id: {name}",
        f"Scores: (#C #S #D #I) {numbers}",
        *(f"{head:<6}{row}".rstrip() for head, row in zip(("REF:", "HYP:", "Eval:"), rows, strict=True)),
    )
    return "\n".join(lines) + "\n"


def _column(said: str | None, heard: str | None) -> tuple[str, str, str]:
    if said is not None and said == heard:
        return said, said, ""
    if said is None:
        return "*" * cell_len(heard or ""), (heard or "").upper(), "I"
    if heard is None:
        return said.upper(), "*" * cell_len(said), "D"
    return said.upper(), heard.upper(), "S"


def _fewest(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Pair]:
    pairs: list[Pair] = []
    (chunks,) = jiwer.process_words([" ".join(reference)], [" ".join(hypothesis)]).alignments
    for chunk in chunks:
        said = reference[chunk.ref_start_idx : chunk.ref_end_idx]
        heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        match chunk.type:
            case "insert":
                pairs += [(None, word) for word in heard]
            case "delete":
                pairs += [(word, None) for word in said]
            case _:
                pairs += zip(said, heard, strict=True)
    return pairs


def _cheapest(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Pair]:
    table = _costs(reference, hypothesis)
    i, j, pairs = len(reference), len(hypothesis), list[Pair]()
    while i or j:
        same = bool(i and j) and reference[i - 1] == hypothesis[j - 1]
        if i and j and table[i, j] == table[i - 1, j - 1] + (0 if same else _SUBSTITUTION):
            i, j = i - 1, j - 1
            pairs.append((reference[i], hypothesis[j]))
        elif j and table[i, j] == table[i, j - 1] + _GAP:
            j -= 1
            pairs.append((None, hypothesis[j]))
        else:
            i -= 1
            pairs.append((reference[i], None))
    return pairs[::-1]


def _costs(reference: Sequence[str], hypothesis: Sequence[str]) -> np.ndarray:
    """Return what it costs at least to align the first i with the first j words, (R + 1, H + 1)."""
    gaps = _GAP * np.arange(len(hypothesis) + 1)
    numbers: dict[str, int] = {}
    said = [numbers.setdefault(word, len(numbers)) for word in reference]
    heard = np.array([numbers.setdefault(word, len(numbers)) for word in hypothesis], dtype=np.int64)
    table = np.empty((len(reference) + 1, len(hypothesis) + 1), dtype=np.int64)
    table[0] = gaps
    for i, word in enumerate(said, 1):
        above = table[i - 1]
        row = above + _GAP
        row[1:] = np.minimum(row[1:], above[:-1] + np.where(heard == word, 0, _SUBSTITUTION))
        table[i] = np.minimum.accumulate(row - gaps) + gaps  # words put in after the cheapest place before
    return table
