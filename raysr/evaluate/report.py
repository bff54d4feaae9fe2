"""A run's report: one HTML file that carries its plots, tables and configuration inside."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from raysr.corpus.disk import replacing
from raysr.evaluate import plots
from raysr.evaluate.filter_table import COLUMNS, filter_tables, percent, strata_rows
from raysr.evaluate.run_files import RunFiles, read_run

METHOD_NAMES = {"greedy": "greedy", "lm": "LM"}


def write_report(run_dir: str | Path) -> Path:
    """Write ``report.html`` into a run's folder, finished or not, and return its path.

    Raises:
        RunError: the folder holds no run.
        CorpusError: the disk is full.
    """
    folder = Path(run_dir)
    page = render(read_run(folder))
    path = folder / "report.html"
    with replacing(path) as file:
        file.write(page.encode())
    return path


def render(run: RunFiles) -> str:
    """Return the page; what the run does not have yet, or was never given, is left out."""
    environment = Environment(
        loader=PackageLoader("raysr.evaluate"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"percent": percent, "hours": hours, "decimal": decimal}
    return environment.get_template("report.html").render(
        run=run,
        labelling=[cycle for cycle in run.cycles if cycle.get("labels")],
        columns=wer_columns(run.cycles),
        method_names=METHOD_NAMES,
        wer_plot=_wer_plot(run.cycles),
        hours_plot=_hours_plot(run.cycles),
        label_plot=_label_plot(run.cycles),
        loss_plot=_loss_plot(run.losses),
        filter_columns=COLUMNS,
        filter_tables=filter_tables,
        strata_rows=strata_rows,
    )


def hours(value: float | None) -> str:
    """Write hours with as many decimals as minutes need; an en dash where there are none."""
    return "–" if value is None else f"{value:.2f} h"


def decimal(value: float | None) -> str:
    """Write a number with one decimal; an en dash where there is none."""
    return "–" if value is None else f"{value:.1f}"


def wer_columns(cycles: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return every (method, set) that any cycle was scored on, in the order they first appear."""
    columns = [
        (method, name)
        for cycle in cycles
        for method, sets in (cycle.get("wer") or {}).items()
        for name in sets
    ]
    return list(dict.fromkeys(columns))


def _wer_plot(cycles: Sequence[Mapping[str, Any]]) -> str | None:
    series = {
        f"{name}, {METHOD_NAMES.get(method, method)}": _points(
            (number, cycle.get("wer", {}).get(method, {}).get(name)) for number, cycle in enumerate(cycles)
        )
        for method, name in wer_columns(cycles)
    }
    return _lines("wer", series, "cycle", "student WER", percent=True)


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


def _lines(name: str, series: plots.Series, x: str, y: str, percent: bool = False) -> str | None:
    drawn = {label: points for label, points in series.items() if points}
    return plots.lines(name, drawn, x, y, percent) if drawn else None


def _points(pairs: Any) -> list[tuple[float, float]]:
    return [(x, y) for x, y in pairs if y is not None and math.isfinite(y)]
