"""The report's plots as inline SVG: text and axes take the page's own colour, light or dark."""

import io
import re
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

INK = "#010203"  # stands for the page's text colour until the SVG is written
SERIES = ("#3b82f6", "#f97316", "#10b981", "#a855f7", "#ef4444", "#eab308", "#06b6d4", "#ec4899")
Series = Mapping[str, Sequence[tuple[float, float]]]


def lines(
    name: str,
    series: Series,
    x_label: str,
    y_label: str,
    percent: bool = False,
    bands: Mapping[str, Sequence[tuple[float, float, float]]] | None = None,
) -> str:
    """Return an SVG of several (x, y) series; `percent` reads y as a fraction and shows it as a percentage.

    A single point a series is drawn as well, so that an unfinished run shows what it has. ``bands`` are (x, low, high)
    of series by label.
    """
    figure, axes = _canvas(x_label, y_label)
    for (label, points), colour in zip(
        series.items(), SERIES * (1 + len(series) // len(SERIES)), strict=False
    ):
        marker = "o" if len(points) <= 20 else None
        axes.plot(*zip(*points, strict=True), marker=marker, markersize=4, color=colour, label=label)
        if band := (bands or {}).get(label):
            x, low, high = zip(*band, strict=True)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    _whole_ticks(axes, [x for points in series.values() for x, _ in points])
    return _svg(name, figure)


def stacked_bars(name: str, groups: Sequence[int], parts: Mapping[str, Sequence[float]], y_label: str) -> str:
    """Return an SVG with one bar a group, its parts stacked: ``parts`` maps a label to a value a group."""
    figure, axes = _canvas("cycle", y_label)
    floor = [0.0] * len(groups)
    for (label, values), colour in zip(parts.items(), ("#10b981", "#eab308", "#ef4444"), strict=False):
        axes.bar(groups, values, bottom=floor, width=0.6, color=colour, label=label)
        floor = [below + value for below, value in zip(floor, values, strict=True)]
    _whole_ticks(axes, groups)
    return _svg(name, figure)


def reliability_diagram(name: str, series: Series) -> str:
    """Return an SVG of (confidence, share of right words) for each series; those on the diagonal are calibrated.

    Series come in pairs of one colour, the first of each dashed.
    """
    figure, axes = _canvas("confidence", "words that are right")
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.4, linewidth=1)
    for number, (label, points) in enumerate(series.items()):
        dashed, colour = ("--", "-")[number % 2], SERIES[number // 2 % len(SERIES)]
        axes.plot(*zip(*points, strict=True), dashed, marker="o", markersize=4, color=colour, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return _svg(name, figure)


def _canvas(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.tick_params(colors=INK)
    axes.grid(axis="y", color=INK, alpha=0.12)
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(INK)
    return figure, axes


def _whole_ticks(axes: Axes, values: Sequence[float]) -> None:
    """Tick whole numbers only, and leave room on both sides of a single one."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if len(set(values)) <= 4:
        axes.set_xlim(min(values) - 0.5, max(values) + 0.5)


def _svg(name: str, figure: Figure) -> str:
    import matplotlib

    figure.legend(frameon=False, labelcolor=INK, fontsize="small", loc="outside upper left", ncols=4)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
