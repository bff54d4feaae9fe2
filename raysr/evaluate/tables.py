"""Outcomes as tables: error rates, confidences, lateness, wanted words, and comparisons."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from raysr.corpus.utterance import Utterance
from raysr.evaluate.filter_table import percent
from raysr.evaluate.outcome import Outcome, Quantiles, Summary
from raysr.evaluate.rare_words import RareWords
from raysr.evaluate.significance import Comparison

NameOf = Callable[[Utterance], str]
NONE = "–"


@dataclass(frozen=True, slots=True)
class Table:
    """What a table says."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Wanted(NamedTuple):
    """How many words or names of a list are recognised in a set."""

    name: str
    method: str
    words: str
    counts: RareWords


class Compared(NamedTuple):
    """A set, or a group of it, by two systems."""

    name: str
    method: str
    comparison: Comparison


def parts(outcomes: Iterable[Outcome], groupings: Mapping[str, NameOf]) -> Iterator[tuple[str, Outcome]]:
    """Yield each outcome under its set's name, and its groups under theirs."""
    for outcome in outcomes:
        yield outcome.name, outcome
        for by, name_of in groupings.items():
            for value, group in outcome.groups(name_of).items():
                yield f"{outcome.name}, {by.removeprefix('tag:')}={value}", group


def units_of(outcome: Outcome, name_of: NameOf | None) -> list[str] | None:
    """Return what each utterance of an outcome is drawn with; None where each is drawn by itself."""
    return None if name_of is None else [name_of(utterance) for utterance in outcome.utterances]


def summaries(
    outcomes: Iterable[Outcome], groupings: Mapping[str, NameOf], name_of: NameOf | None = None
) -> list[Summary]:
    """Return the summaries of outcomes and of their groups; ``name_of`` is what utterances are drawn with."""
    return [
        outcome.summary(label, units_of(outcome, name_of)) for label, outcome in parts(outcomes, groupings)
    ]


def wanted(outcomes: Iterable[Outcome], lists: Mapping[str, Collection[str]]) -> list[Wanted]:
    """Count the words and names of each list in each outcome."""
    return [
        Wanted(outcome.name, outcome.method, name, outcome.wanted(words))
        for name, words in lists.items()
        for outcome in outcomes
    ]


def paired(methods: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Return which methods of two systems are compared: the same ones, or each with the other system's only one."""
    alike = [(method, method) for method in methods if method in others]
    return alike or [(method, other) for method in methods for other in others if len(others) == 1]


def comparisons(
    outcomes: Sequence[Outcome],
    others: Sequence[Outcome],
    groupings: Mapping[str, NameOf],
    name_of: NameOf | None = None,
) -> list[Compared]:
    """Compare outcomes with those that :func:`paired` finds for them; what cannot be compared is left out."""
    found = []
    for outcome in outcomes:
        of_set = {other.method: other for other in others if other.name == outcome.name}
        for mine_by, theirs_by in paired([outcome.method], list(of_set)):
            other = of_set[theirs_by]
            method = mine_by if mine_by == theirs_by else f"{mine_by}, {theirs_by}"
            pairs = zip(parts([outcome], groupings), parts([other], groupings), strict=True)
            for (label, mine), (_, theirs) in pairs:
                comparison = mine.against(theirs, units_of(mine, name_of))
                found += [] if comparison is None else [Compared(label, method, comparison)]
    return found


def tables(
    title: str, found: Sequence[Summary], words: Sequence[Wanted], compared: Sequence[Compared], rival: str
) -> list[Table]:
    """Return what is to be printed, without columns and tables that would be empty."""
    made = [
        _table(
            title, ("WER", "95% interval", "sub", "del", "ins", "words", "CER", "MER"), map(_rates, found)
        ),
        _table("confidence of words", ("right", "calibration error", "NCE", "area"), map(_sureness, found)),
        _table(
            "time",
            ("computing/audio", "first text p50/p95", "emission p50/p95", "final p50/p95", "taken back"),
            map(_times, found),
        ),
        _table("words that matter", ("said", "recall", "precision", "WER of others"), map(_recall, words)),
        _table(
            f"{title} against {rival}",
            ("WER", "against", "difference", "95% interval", "p", "fewer errors", "more"),
            map(_difference, compared),
        ),
    ]
    return [table for table in made if len(table.columns) > 2]


def as_json(
    entry: str, found: Sequence[Summary], words: Iterable[Wanted], compared: Iterable[Compared]
) -> dict[str, Any]:
    """Return all of it for programs: fractions and seconds, what is not known null."""
    wer: dict[str, dict[str, float | None]] = {}
    for summary in found:
        wer.setdefault(summary.method, {})[summary.name] = summary.words.rate
    recalls = [
        {"set": one.name, "method": one.method, "list": one.words, **asdict(one.counts)}
        | {"recall": one.counts.recall, "precision": one.counts.precision, "other_wer": one.counts.other_wer}
        for one in words
    ]
    against = [{"set": one.name, "method": one.method, **asdict(one.comparison)} for one in compared]
    return {
        "entry": entry,
        "wer": wer,
        "sets": [one.as_json() for one in found],
        "words": recalls,
        "against": against,
    }


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Leave out rows and columns that say nothing; the first two columns are the set and the method."""
    kept = [row for row in rows if any(cell != NONE for cell in row[2:])]
    names = ("set", "method", *columns)
    used = [place for place in range(len(names)) if place < 2 or any(row[place] != NONE for row in kept)]
    return Table(title, [names[place] for place in used], [[row[place] for place in used] for row in kept])


def _rates(one: Summary) -> Sequence[str]:
    words, interval = one.words, one.interval
    return (
        one.name,
        one.method,
        percent(words.rate),
        NONE if interval is None else f"{percent(interval.low)} to {percent(interval.high)}",
        *map(str, (words.substitutions, words.deletions, words.insertions, words.reference)),
        percent(one.characters.rate),
        NONE if one.mixed == words else percent(one.mixed.rate),
    )


def _sureness(one: Summary) -> Sequence[str]:
    sure = one.confidence
    if sure is None:
        return (one.name, one.method, *[NONE] * 4)
    error = percent(sure.calibration_error)
    return one.name, one.method, percent(sure.right), error, f"{sure.cross_entropy:.3f}", f"{sure.area:.3f}"


def _times(one: Summary) -> Sequence[str]:
    late = (_seconds(one.late.get(what)) for what in ("first_partial", "emission", "final_endpoint"))
    factor = NONE if one.real_time_factor is None else f"{one.real_time_factor:.3f}"
    return one.name, one.method, factor, *late, percent(one.unstable)


def _recall(one: Wanted) -> Sequence[str]:
    rates = (one.counts.recall, one.counts.precision, one.counts.other_wer)
    return f"{one.name}, {one.words}", one.method, str(one.counts.said), *map(percent, rates)


def _difference(one: Compared) -> Sequence[str]:
    found, difference = one.comparison, one.comparison.difference
    return (
        one.name,
        one.method,
        percent(found.wer),
        percent(found.other),
        f"{100 * difference.estimate:+.2f}",
        f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f}",
        f"{found.p:.4f}",
        str(found.fewer),
        str(found.more),
    )


def _seconds(found: Quantiles | None) -> str:
    return NONE if found is None else f"{found.p50:.2f}/{found.p95:.2f} s"
