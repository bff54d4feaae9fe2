"""A run's report holds what the run's files hold, in one self-contained page, at every stage of the run."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from raysr.errors import RunError
from raysr.evaluate.plots import SERIES, reliability_diagram
from raysr.evaluate.report import write_report
from raysr.evaluate.run_files import read_run
from raysr.ipl.decisions import Decision, Status, write_decisions
from raysr.ipl.labels import measure_labels

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Collects the visible text of every element name, and checks that tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.outside: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.outside += [v for k, v in attributes if k in {"src", "href"} and v and not v.startswith("#")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open:
            self.texts.setdefault(self.open[-1], []).append(data.strip())


def decision(name: str, status: Status, reason: str | None) -> Decision:
    return Decision(name, status, "some text" if status != "failed" else None, reason, -0.1, 1800.0, "abc")


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_run(folder: Path, truth: bool = True, tests: bool = True) -> Path:
    """Write a run of two finished cycles and a third that is in training."""
    folder.mkdir()
    (folder / "config.yaml").write_text("run: {dir: runs/x}\nnote: <b>&\n")
    cycles: list[dict[str, Any]] = [
        {"cycle": 0},
        {"cycle": 1, "offered_h": 2.0, "kept_h": 1.0, "filtered": 2, "failed": 1},
    ]
    cycles[1] |= {"filtered_h": 1.0, "failed_h": 0.5}
    if truth:
        cycles[1]["label_wer"] = 0.125
    if tests:
        for number, cycle in enumerate(cycles):
            cycle["wer"] = {m: {"clean": 0.4 - 0.1 * number, "music": None} for m in ("greedy", "lm")}
    for number, cycle in enumerate(cycles):
        here = folder / "cycles" / f"{number:03d}"
        write_json(here / "report.json", cycle)
        (here / "train").mkdir()
        steps = [{"step": step, "loss": 50 / step} for step in range(10, 60, 10)]
        (here / "train" / "metrics.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in steps) + '{"step": 60, "lo'
        )
    write_decisions(
        folder / "cycles/001/decisions.parquet",
        [
            decision("a", "kept", None),
            decision("b", "filtered", "score below 0.5"),
            decision("c", "filtered", "score below 0.5"),
            decision("d", "failed", "no audio <script>"),
        ],
    )
    row = {
        "set": "clean",
        "method": "lm",
        "words": 5,
        "reference": "tell anna about it",
        "hypothesis": "tell hannah",
    }
    scores = [row | {"id": f"u{n}", "errors": n} for n in range(40)]
    (folder / "cycles/001/scores.jsonl").write_text("".join(json.dumps(score) + "\n" for score in scores))
    (folder / "cycles/002").mkdir()
    write_json(folder / "pool/cycle-001/metrics.json", {"parents": ["cycle-000"]})
    write_json(folder / "pool/cycle-001/manifest.json", {"files": {"model.safetensors": "0123456789abcdef"}})
    return folder


def test_the_page_shows_every_part_of_an_unfinished_run(tmp_path: Path) -> None:
    path = write_report(write_run(tmp_path / "run"))
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.outside == [], "the page needs nothing beside itself"
    assert "this run is unfinished" in text
    cells = page.texts["td"]
    assert {"12.5%", "30.0%", "40.0%", "2.00 h", "1.00 h"} <= set(cells)
    assert cells[cells.index("score below 0.5") + 1] == "2"
    assert "note: <b>&" in page.texts["pre"][0] or "note: <b>&" in "".join(page.texts["pre"])
    assert text.count("<svg") == 4
    assert "<script" not in text


def test_the_plots_are_valid_svg_in_the_colours_of_the_page(tmp_path: Path) -> None:
    text = write_report(write_run(tmp_path / "run")).read_text(encoding="utf-8")
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    ids: list[str] = []
    for plot in plots:
        root = ElementTree.fromstring(plot)
        assert "viewBox" in root.attrib
        assert "width" not in root.attrib
        assert "currentColor" in plot
        here = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        for reference in re.findall(r'(?:href="#|url\(#)([^")]+)', plot):
            assert reference in here
        ids += here
    assert len(ids) == len(set(ids)), "ids are those of the whole page"


def test_a_reliability_diagram_draws_every_series_and_the_diagonal() -> None:
    bins = [(0.1, 0.3), (0.5, 0.55), (0.9, 0.8)]
    root = ElementTree.fromstring(reliability_diagram("confidence", {"before": bins, "after": bins[:1]}))
    styles = [e.attrib.get("style", "") for e in root.iter() if SERIES[0] in e.attrib.get("style", "")]
    in_legend = 2
    assert sum("fill: #" in style for style in styles) - in_legend == 3 + 1, "a mark for every bin"
    assert sum("stroke-dasharray" in style for style in styles) == 2, "the first of a pair, and its entry"
    assert {"before", "after"} <= {(e.text or "").strip() for e in root.iter()}


@pytest.mark.parametrize(("truth", "tests", "plots"), [(False, True, 3), (True, False, 3), (False, False, 2)])
def test_what_the_run_was_not_given_is_left_out(tmp_path: Path, truth: bool, tests: bool, plots: int) -> None:
    text = write_report(write_run(tmp_path / "run", truth, tests)).read_text(encoding="utf-8")
    Page(text)
    assert text.count("<svg") == plots


def test_a_run_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("run: {}\n")
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "0 cycles done" in Page(text).texts["p"][0]
    assert "<svg" not in text


def test_the_worst_utterances_come_first_and_torn_lines_are_left_out(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    assert [one.errors for one in run.scores.worst] == list(range(39, 9, -1))
    assert run.losses["cycle 0"] == [(float(step), 50 / step) for step in range(10, 60, 10)]


def test_a_step_that_was_trained_twice_counts_once_with_its_last_loss(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    rows = [{"step": 10, "loss": 5.0}, {"step": 20, "loss": 4.0}, {"step": 10, "loss": 4.5}]
    (folder / "cycles/000/train/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_run(folder).losses["cycle 0"] == [(10.0, 4.5), (20.0, 4.0)]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        write_report(tmp_path)


def test_reasons_are_told_by_filter_and_failures_by_kind(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    rows = [
        Decision(f"u{n}", "filtered", "x", f"score -{n}.5 below 0.1", -n, 60.0, "abc", "score")
        for n in range(5)
    ]
    rows += [
        Decision(f"f{n}", "failed", None, f"utterance f{n}: /a/{n}.wav: a text file", None, 60.0, "abc")
        for n in range(3)
    ]
    write_decisions(folder / "cycles/001/decisions.parquet", rows)
    told = [(row["rule"], row["utterances"]) for row in read_run(folder).reasons]
    assert told == [("score", 5), (None, 3)]


def test_the_page_shows_what_the_filters_are_worth(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    counts = {"labels": 8, "good": 4, "kept": 6, "precision": 0.625, "recall": 0.875, "label_wer": 0.15}
    example = {"id": "canary:d1", "kept": False, "text": "a <b>", "reference": "a b", "reason": "score low"}
    report = {
        "cycle": 1,
        "good_wer": 10.0,
        "filter_hash": "abc",
        "unfiltered": {"canary": counts | {"precision": 0.5, "recall": 1.0, "kept": 8}},
        "filters": [
            {
                "filter": "score",
                "offered": 9,
                "dropped": 3,
                "dropped_h": 0.25,
                "alone": {"canary": counts},
                "so_far": {"canary": counts | {"recall": 0.7}},
                "examples": [example],
            }
        ],
        "strata": {"duration": [{"stratum": "2 to 4 s", "utterances": 9, "offered_h": 1.0, "kept_h": 0.75}]},
    }
    write_json(folder / "cycles/001/filters.json", report)
    text = write_report(folder).read_text(encoding="utf-8")
    page = Page(text)
    cells = page.texts["td"]
    first = cells.index("3 of 9")
    assert cells[first - 1 : first + 7] == [
        "score",
        "3 of 9",
        "0.25",
        "62.5%",
        "87.5%",
        "62.5%",
        "70.0%",
        "15.0%",
    ]
    assert cells[cells.index("2 to 4 s") + 1 :][:4] == ["9", "1.00", "0.75", "75.0%"]
    assert "4 of 8 labels are good (10% WER or less)" in text
    assert "score low" in cells
    assert "a <b>" in cells


def test_a_stopped_run_says_why_and_what_its_labels_were_like(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    cycles = [json.loads(path.read_text()) for path in sorted(folder.glob("cycles/*/report.json"))]
    cycles[1] |= measure_labels([decision("a", "kept", None), decision("b", "failed", "gone")], prior=12.5)
    stopped = {"reason": "cycle 1 has <collapsed>"}
    write_json(folder / "report.json", {"stopped": stopped, "best": "cycle-000", "cycles": cycles})
    text = write_report(folder).read_text(encoding="utf-8")
    assert "stopped: cycle 1 has &lt;collapsed&gt;" in text
    assert "unfinished" not in text
    assert "best student cycle-000" in text
    cells = Page(text).texts["td"]
    assert {"12.5", "0.0", "0.0%", "50.0%"} <= set(cells)  # eight letters in half an hour
