"""A cycle's filters as tables: what each drops and how well, and what is left of every stratum.

Reads ``filters.json``, as :func:`raysr.ipl.filters.report.judge_filters` makes it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = ("filter", "dropped", "hours", "precision", "recall", "so far: precision", "recall", "label WER")
SIDES = {"canary": "on the canary", "truth": "on the selected audio"}
Row = tuple[str, ...]


def percent(fraction: float | None) -> str:
    """Write a fraction as a percentage; an en dash where there is none, or it is not finite."""
    return "–" if fraction is None or not math.isfinite(fraction) else f"{100 * fraction:.1f}%"


def filter_tables(report: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Return a table with :data:`COLUMNS` by title, for the canary and for selected audio with truth.

    Without either it is one that only says how much is dropped.
    """
    judged = [side for side in SIDES if side in report["unfiltered"]]
    if not judged:
        return {"no transcripts to judge by": [_row(row, None) for row in report["filters"]]}
    return {title(report, side): [_all(report, side), *_rows(report, side)] for side in judged}


def title(report: Mapping[str, Any], side: str) -> str:
    """Return what a table is about, with how many of its labels are good."""
    counts = report["unfiltered"][side]
    return (
        f"{SIDES[side]}: {counts['good']} of {counts['labels']} labels are good "
        f"({report['good_wer']:g}% WER or less)"
    )


def strata_rows(report: Mapping[str, Any]) -> list[Row]:
    """Return (kind, stratum, utterances, hours offered, hours kept, share kept) of every stratum."""
    return [
        (
            kind,
            row["stratum"],
            str(row["utterances"]),
            f"{row['offered_h']:.2f}",
            f"{row['kept_h']:.2f}",
            percent(row["kept_h"] / row["offered_h"] if row["offered_h"] else None),
        )
        for kind, rows in report["strata"].items()
        for row in rows
    ]


def _rows(report: Mapping[str, Any], side: str) -> list[Row]:
    return [_row(row, side) for row in report["filters"]]


def _row(row: Mapping[str, Any], side: str | None) -> Row:
    name, dropped, hours = row["filter"], f"{row['dropped']} of {row['offered']}", f"{row['dropped_h']:.2f}"
    if side is None:
        return (name, dropped, hours, *["–"] * 5)
    alone, so_far = row["alone"][side], row["so_far"][side]
    return name, dropped, hours, *_quality(alone)[:2], *_quality(so_far)


def _all(report: Mapping[str, Any], side: str) -> Row:
    return "(none)", "", "", "", "", *_quality(report["unfiltered"][side])


def _quality(counts: Mapping[str, Any]) -> Sequence[str]:
    return [percent(counts[name]) for name in ("precision", "recall", "label_wer")]
