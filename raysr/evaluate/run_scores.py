"""The scored test utterances of a run's students, as its cycles leave them in ``scores.jsonl``."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysr.evaluate.bootstrap import Interval, quick_interval, recovery_interval, wer_interval
from raysr.evaluate.jsonl import read_jsonl
from raysr.evaluate.significance import Comparison, compare

Key = tuple[str, str]
"""A method and a set."""
SHOWN = 30
SEVERAL = 200
"""Utterances from which on an interval is a normal one, about the bootstrap's: a report has very many."""
RECOVERY_DRAWS = 2000
PREFERRED = ("lm", "greedy")
"""Methods whose utterances are shown, the first that there is."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A set by a method: ids, errors (N,) and words (N,), in the order of ids."""

    ids: tuple[str, ...]
    errors: NDArray[np.int64]
    words: NDArray[np.int64]

    @property
    def interval(self) -> Interval | None:
        """The WER with its interval; None of one utterance, or without a word."""
        if len(self.ids) < 2 or not self.words.sum():
            return None
        if len(self.ids) >= SEVERAL:
            return quick_interval(self.errors, self.words)
        return wer_interval(self.errors, self.words, draws=2000)


@dataclass(frozen=True, slots=True)
class Changed:
    """An utterance by the first student that was scored and by the last: what was said and heard, and errors."""

    id: str
    set: str
    method: str
    words: int
    reference: str
    hypothesis: str
    errors: int
    before: str | None = None
    errors_before: int | None = None

    @property
    def gained(self) -> int:
        """Errors that it has no more; negative where there are more of them."""
        return 0 if self.errors_before is None else self.errors_before - self.errors


@dataclass(frozen=True, slots=True)
class RunScores:
    """By cycle and by (method, set) what was scored; and the utterances worth a look."""

    cycles: dict[int, dict[Key, Scored]] = field(default_factory=dict)
    worst: Sequence[Changed] = ()
    improved: Sequence[Changed] = ()
    worsened: Sequence[Changed] = ()

    @property
    def last(self) -> dict[Key, Scored]:
        """Of the last student that was scored."""
        return self.cycles[max(self.cycles)] if self.cycles else {}

    @property
    def first(self) -> dict[Key, Scored]:
        """Of the first student that was scored."""
        return self.cycles[min(self.cycles)] if self.cycles else {}


def read_scores(cycles: Sequence[Path]) -> RunScores:
    """Read the scores of cycles' folders."""
    numbered = {int(path.name): path / "scores.jsonl" for path in cycles if (path / "scores.jsonl").is_file()}
    scored = {number: _scored(read_jsonl(path)) for number, path in numbered.items()}
    if not any(scored.values()):
        return RunScores()
    scored = {number: sets for number, sets in scored.items() if sets}
    methods = {method for method, _ in scored[max(scored)]}
    method = next((known for known in PREFERRED if known in methods), min(methods))
    last = [row for row in read_jsonl(numbered[max(scored)]) if row["method"] == method]
    first = read_jsonl(numbered[min(scored)]) if len(scored) > 1 else iter(())
    before = {(row["set"], row["id"]): row for row in first if row["method"] == method}
    changed = [_changed(row, before.get((row["set"], row["id"]))) for row in last]
    return RunScores(
        scored,
        worst=_most(changed, lambda one: one.errors),
        improved=_most(changed, lambda one: one.gained),
        worsened=_most(changed, lambda one: -one.gained),
    )


def against(mine: RunScores, other: RunScores) -> dict[Key, Comparison]:
    """Compare the last students of two runs; sets whose ids, or words of references, are not as many are left out."""
    return {
        key: compare(one.errors, theirs.errors, one.words)
        for key, one in mine.last.items()
        if (theirs := other.last.get(key)) is not None and _same(one, theirs) and one.interval is not None
    }


def recovery(mine: RunScores, oracle: RunScores) -> dict[Key, Interval]:
    """Return the WER recovery rate: of what true transcripts would gain over the first student, what the last one has.

    See :func:`raysr.evaluate.bootstrap.recovery_interval`. Sets that the three have not in common are left out.
    """
    found = {}
    for key, one in mine.last.items():
        first, best = mine.first.get(key), oracle.last.get(key)
        if len(mine.cycles) < 2 or first is None or best is None:
            continue
        if one.interval is None or not _same(first, one) or not _same(one, best):
            continue
        if first.errors.sum() > best.errors.sum():
            found[key] = recovery_interval(first.errors, one.errors, best.errors, draws=RECOVERY_DRAWS)
    return found


def _scored(rows: Iterator[dict[str, Any]]) -> dict[Key, Scored]:
    groups: dict[Key, list[tuple[str, int, int]]] = {}
    for row in rows:
        group = groups.setdefault((row["method"], row["set"]), [])
        group.append((row["id"], row["errors"], row["words"]))
    found = {}
    for key, group in groups.items():
        ids, errors, words = zip(*sorted(group), strict=True)
        found[key] = Scored(ids, np.array(errors, np.int64), np.array(words, np.int64))
    return found


def _changed(row: dict[str, Any], before: dict[str, Any] | None) -> Changed:
    was = {} if before is None else {"before": before["hypothesis"], "errors_before": before["errors"]}
    names = ("id", "set", "method", "words", "reference", "hypothesis", "errors")
    return Changed(**{name: row[name] for name in names}, **was)


def _same(one: Scored, other: Scored) -> bool:
    return one.ids == other.ids and np.array_equal(one.words, other.words)


def _most(changed: Sequence[Changed], of: Callable[[Changed], int]) -> list[Changed]:
    return sorted((one for one in changed if of(one) > 0), key=lambda one: (-of(one), one.id))[:SHOWN]
