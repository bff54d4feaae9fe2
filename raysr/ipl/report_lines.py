"""A cycle's report as a person reads it while the run goes on."""

from collections.abc import Iterator, Mapping
from typing import Any


def report_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield what became of the audio offered, what the labels are like, and how the student does."""
    if report["offered"]:
        label = f", label WER {_percent(report['label_wer'])}" if report["label_wer"] is not None else ""
        yield (
            f"offered {report['offered_h']:.2f} h, kept {report['kept_h']:.2f} h ({report['kept']}), "
            f"filtered {report['filtered']}, failed {report['failed']}{label}"
        )
    if report.get("labels"):
        yield f"labels: {', '.join(_of_labels(report))}"
    for method, sets in report["wer"].items():
        yield f"WER {method}: " + ", ".join(f"{name} {_percent(wer)}" for name, wer in sets.items())


def _of_labels(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"{_percent(report['empty_rate'])} empty"
    yield f"{_percent(report['loop_rate'])} looping"
    if report["characters_per_s"] is not None:
        usual = report["labelled_characters_per_s"]
        where = f" ({usual:.1f} where transcribed)" if usual else ""
        yield f"{report['characters_per_s']:.1f} characters a second{where}"
    if report["drift"] is not None:
        yield f"{_percent(report['drift'])} changed since the last cycle"
    if report["canary_label_wer"] is not None:
        yield f"WER on held-out audio {_percent(report['canary_label_wer'])}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"
