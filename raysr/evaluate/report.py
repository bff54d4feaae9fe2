"""A run's report: one HTML file that carries its plots, tables, configuration, and audio if asked for, inside."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from raysr.corpus.disk import replacing
from raysr.evaluate import plots
from raysr.evaluate.alignment import align
from raysr.evaluate.filter_table import COLUMNS, filter_tables, percent, strata_rows
from raysr.evaluate.listening import Listening
from raysr.evaluate.run_files import RunFiles, read_run
from raysr.evaluate.run_scores import Changed, against, recovery

METHOD_NAMES = {"greedy": "greedy", "lm": "LM"}
AUDIO_BYTES = 12_000_000
"""Of audio and spectrograms that a page carries at most."""
Utterance = tuple[str, str]
"""A test utterance: its set and its id."""
Listen = Callable[[str, str], Listening | None]
"""Returns the audio of a set's utterance; None where it cannot be had."""


def write_report(
    run_dir: str | Path,
    others: Sequence[str | Path] = (),
    oracle: str | Path | None = None,
    listen: Listen | None = None,
    played: int = 0,
) -> Path:
    """Write ``report.html`` into a run's folder, finished or not, and return its path.

    Args:
        run_dir: of the run.
        others: further runs to compare it with.
        oracle: a run that was trained on the true transcripts of what this one labels; gives the WER recovery rate.
        listen: has the audio of utterances, which is in the page only if this is given.
        played: how many of each list of utterances can be heard.

    Raises:
        RunError: a folder holds no run.
        CorpusError: the disk is full.
    """
    folder = Path(run_dir)
    best = None if oracle is None else read_run(Path(oracle))
    page = render(read_run(folder), [read_run(Path(other)) for other in others], best, listen, played)
    path = folder / "report.html"
    with replacing(path) as file:
        file.write(page.encode())
    return path


def render(
    run: RunFiles,
    others: Sequence[RunFiles] = (),
    oracle: RunFiles | None = None,
    listen: Listen | None = None,
    played: int = 0,
) -> str:
    """Return the page; what the run does not have yet, or was never given, is left out."""
    environment = Environment(
        loader=PackageLoader("raysr.evaluate"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"percent": percent, "hours": hours, "decimal": decimal, "points": points}
    lists = {
        "Most errors": run.scores.worst,
        "Most improved since the first student": run.scores.improved,
        "Most worsened since the first student": run.scores.worsened,
    }
    return environment.get_template("report.html").render(
        run=run,
        labelling=[cycle for cycle in run.cycles if cycle.get("labels")],
        columns=wer_columns(run.cycles),
        method_names=METHOD_NAMES,
        scored=run.scores.cycles,
        wer_plot=_wer_plot(run),
        hours_plot=_hours_plot(run.cycles),
        label_plot=_label_plot(run.cycles),
        loss_plot=_loss_plot(run.losses),
        filter_columns=COLUMNS,
        filter_tables=filter_tables,
        strata_rows=strata_rows,
        utterances={title: rows for title, rows in lists.items() if rows},
        sounds={} if listen is None else _sounds(list(lists.values()), played, listen),
        asked=listen is not None,
        aligned=aligned,
        compared=[(other, against(run.scores, other.scores)) for other in others],
        recovered={} if oracle is None else recovery(run.scores, oracle.scores),
        oracle=oracle,
    )


def hours(value: float | None) -> str:
    """Write hours with as many decimals as minutes need; an en dash where there are none."""
    return "–" if value is None else f"{value:.2f} h"


def decimal(value: float | None) -> str:
    """Write a number with one decimal; an en dash where there is none."""
    return "–" if value is None else f"{value:.1f}"


def points(value: float) -> str:
    """Write a difference of fractions in points."""
    return f"{100 * value:+.1f}"


def aligned(reference: str, hypothesis: str) -> list[tuple[str | None, str | None]]:
    """Return the words of both side by side."""
    return align(reference.split(), hypothesis.split())


def wer_columns(cycles: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return every (method, set) that any cycle was scored on, in the order they first appear."""
    columns = [
        (method, name)
        for cycle in cycles
        for method, sets in (cycle.get("wer") or {}).items()
        for name in sets
    ]
    return list(dict.fromkeys(columns))


def _sounds(lists: Sequence[Sequence[Changed]], played: int, listen: Listen) -> dict[Utterance, Listening]:
    """Return the audio of the first utterances of every list, as many as there is room for wherever they are shown."""
    sounds: dict[Utterance, Listening] = {}
    shown = Counter((one.set, one.id) for rows in lists for one in rows)
    room = AUDIO_BYTES
    for place in range(min(played, max(map(len, lists), default=0))):
        for one in (rows[place] for rows in lists if place < len(rows)):
            if (one.set, one.id) in sounds or (found := listen(one.set, one.id)) is None:
                continue
            room -= (len(found.audio) + len(found.spectrogram)) * shown[one.set, one.id]
            if room < 0:
                return sounds
            sounds[one.set, one.id] = found
    return sounds


def _wer_plot(run: RunFiles) -> str | None:
    series, bands = {}, {}
    for method, name in wer_columns(run.cycles):
        label = f"{name}, {METHOD_NAMES.get(method, method)}"
        series[label] = _points(
            (number, cycle.get("wer", {}).get(method, {}).get(name))
            for number, cycle in enumerate(run.cycles)
        )
        intervals = {
            number: sets[method, name].interval
            for number, sets in run.scores.cycles.items()
            if (method, name) in sets
        }
        bands[label] = [(float(n), i.low, i.high) for n, i in sorted(intervals.items()) if i is not None]
    return _lines("wer", series, "cycle", "student WER", percent=True, bands=bands)


def _label_plot(cycles: Sequence[Mapping[str, Any]]) -> str | None:
    points = _points((number, cycle.get("label_wer")) for number, cycle in enumerate(cycles))
    return _lines("label", {"kept pseudo-labels": points}, "cycle", "label WER", percent=True)


def _loss_plot(losses: Mapping[str, Sequence[tuple[float, float]]]) -> str | None:
    return _lines("loss", {name: _points(points) for name, points in losses.items()}, "step", "training loss")


def _hours_plot(cycles: Sequence[Mapping[str, Any]]) -> str | None:
    labelled = [(number, cycle) for number, cycle in enumerate(cycles) if cycle.get("offered_h")]
    if not labelled:
        return None
    parts = {
        name: [float(cycle.get(f"{name}_h") or 0) for _, cycle in labelled]
        for name in ("kept", "filtered", "failed")
    }
    return plots.stacked_bars("hours", [number for number, _ in labelled], parts, "hours offered")


def _lines(
    name: str,
    series: plots.Series,
    x: str,
    y: str,
    percent: bool = False,
    bands: Mapping[str, Sequence[tuple[float, float, float]]] | None = None,
) -> str | None:
    drawn = {label: points for label, points in series.items() if points}
    return plots.lines(name, drawn, x, y, percent, bands) if drawn else None


def _points(pairs: Any) -> list[tuple[float, float]]:
    return [(x, y) for x, y in pairs if y is not None and math.isfinite(y)]
