"""A run says what its filters are worth, other filters can be tried on it, and nothing held out is selected."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import filters
from benchmarks.filters import compare, read_runs
from raysr.cli.app import run as command
from raysr.config import read_yaml
from raysr.corpus.manifest import open_manifest
from raysr.corpus.utterance import Utterance
from raysr.errors import ConfigError, RunError
from raysr.evaluate.report import write_report
from raysr.ipl.canary import read_canary
from raysr.ipl.config import RunConfig
from raysr.ipl.cycle import run_cycles
from raysr.ipl.decisions import read_decisions
from raysr.ipl.filters.chain import FilterChain
from raysr.ipl.filters.report import Side, filter_report
from raysr.ipl.predictions import Prediction, TeacherHypothesis
from raysr.ipl.progress import Progress
from raysr.ipl.run import open_run
from raysr.ipl.what_if import what_if
from raysr.teachers.base import TeacherOutput

TRUTH = "one two three four five"


def label(number: int, wrong: int, score: float, prefix: str = "u") -> Prediction:
    text = " ".join(["x"] * wrong + TRUTH.split()[wrong:])
    output = TeacherOutput(text, normalised_score=score)
    return Prediction(f"{prefix}{number:02d}", 1, 3.0, (TeacherHypothesis("t", "1", output),))


def below(threshold: float) -> Any:
    return lambda rows: {
        p.id: f"below {threshold}" for p in rows if p.label and (p.label.normalised_score or 0) < threshold
    }


LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(-9, 0)), max_size=12)


@given(LABELS, LABELS, st.integers(-9, 0), st.integers(-9, 0))
def test_precision_and_recall_are_those_counted_by_hand(
    found: list[tuple[int, int]], canary: list[tuple[int, int]], first: int, second: int
) -> None:
    chain = FilterChain({"first": below(first), "second": below(second)}, "h")
    rows = [label(n, wrong, score) for n, (wrong, score) in enumerate(found)]
    birds = [label(n, wrong, score, "c") for n, (wrong, score) in enumerate(canary)]
    failed = Prediction("failed", 1, 9.0, error="unreadable")
    sides = (
        Side([*rows, failed], {}, chain),
        Side(birds, {p.id: TRUTH for p in birds}, chain, good_wer=20.0),
    )
    report = filter_report(chain, *sides, {p.id: Utterance(p.id, "/a", 3.0, speaker="anna") for p in rows})
    one, two = report["filters"]
    assert one["offered"] == len(found)
    assert one["dropped"] == sum(score < first for _, score in found)
    assert two["dropped"] == sum(first <= score < second for _, score in found)
    assert two["offered"] == one["offered"] - one["dropped"]
    (stratum,) = report["strata"]["duration"][:1]
    assert sum(row["kept_h"] for row in report["strata"]["duration"]) * 3600 == pytest.approx(
        3.0 * sum(score >= max(first, second) for _, score in found)
    )
    assert stratum["offered_h"] > 0
    if not canary:
        assert one["alone"] == {}
        return
    for told, least in (
        (one["alone"], first),
        (two["alone"], second),
        (one["so_far"], first),
        (two["so_far"], max(first, second)),
    ):
        kept = [wrong for wrong, score in canary if score >= least]
        good = sum(wrong <= 1 for wrong, _ in canary)
        hits = sum(wrong <= 1 for wrong in kept)
        counts = told["canary"]
        assert counts["kept"] == len(kept)
        assert counts["precision"] == (pytest.approx(hits / len(kept)) if kept else None)
        assert counts["recall"] == (pytest.approx(hits / good) if good else None)
        assert counts["label_wer"] == (pytest.approx(sum(kept) / (5 * len(kept))) if kept else None)
    examples = one["examples"]
    scores = {p.id: p.label.normalised_score for p in (*rows, *birds) if p.label}
    for row in examples:
        assert row["reference"] == (TRUTH if row["id"][0] == "c" else None)
        assert row["kept"] == (scores[row["id"]] >= first) == (row["reason"] is None)
    assert bool(examples) == any(score < first for _, score in (*found, *canary))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_config: Callable[[Path], dict[str, Any]]) -> Path:
    """A run that was offered a copy of a test utterance under another name, and is given others as labelled ones."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny_config(folder)
    chain = [
        {"kind": "empty"},
        {"kind": "duplicate", "same_text": 2},
        {"kind": "score", "keep": 0.5},
    ]
    shutil.copy(folder / "audio" / "test-2.wav", folder / "audio" / "smuggled.wav")
    row = {"id": "smuggled", "audio_filepath": "audio/smuggled.wav", "duration": 0.6}
    with (folder / "unlabelled.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    row = {"id": "both", "audio_filepath": "audio/test-4.wav", "duration": 0.6, "text": "one two"}
    with (folder / "labelled.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n" + json.dumps({**row, "id": "no text", "text": None}) + "\n")
    shutil.copy(folder / "audio" / "dev-1.wav", folder / "audio" / "again.wav")
    row = {"id": "again", "audio_filepath": "audio/again.wav", "duration": 0.6, "text": "two"}
    (folder / "elsewhere.jsonl").write_text(json.dumps(row) + "\n")
    config["from_cycle"] = {
        1: {
            "batcher": {"rehearse": str(folder / "elsewhere.jsonl")},
            "filter": chain,
            "recogniser": {"vote": "first"},
        }
    }
    with open_run(RunConfig.parse(config), Progress(quiet=True), use_ray=False) as run:
        run_cycles(run)
        return run.folder


def test_audio_of_a_test_set_is_not_selected_and_is_reported(finished: Path) -> None:
    selected = [json.loads(line)["id"] for line in (finished / "cycles/001/selection.jsonl").open()]
    assert selected == [f"unlabelled-{n}" for n in range(6)]
    (row,) = [json.loads(line) for line in (finished / "cycles/001/held-out.jsonl").open()]
    assert (row["id"], row["reason"]) == ("smuggled", "tests.clean: a copy of 'test-2'")
    cycles = json.loads((finished / "report.json").read_text())["cycles"]
    assert [cycle["held_out"] for cycle in cycles] == [0, 1]
    assert "held out" in write_report(finished).read_text()


def test_labelled_audio_of_dev_and_tests_is_trained_on_and_told_once(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (finished / "held-out.jsonl").open()]
    assert [(row["id"], row["set"], row["reason"]) for row in rows] == [
        ("both", "data.labelled", "tests.clean: the same recording as 'test-4'"),
        ("again", "batcher.rehearse", "dev: a copy of 'dev-1'"),
    ]
    trained_on = [u.id for u in open_manifest(finished / "cycles/001/labelled.jsonl")]
    assert trained_on == [*(f"labelled-{n}" for n in range(6)), "both"]
    cycles = json.loads((finished / "report.json").read_text())["cycles"]
    assert [cycle["held_out_labelled"] for cycle in cycles] == [2, 2]
    events = [json.loads(line) for line in (finished / "events.jsonl").open()]
    (told,) = [event for event in events if event["event"] == "held-out audio is trained on"]
    assert told["utterances"] == 2
    assert "'both' (data.labelled; tests.clean: the same recording as 'test-4')" in told["examples"]
    assert "held out, trained on" in write_report(finished).read_text()
    (finished / "held-out.jsonl").unlink()
    config = RunConfig.parse(read_yaml(finished / "config.yaml"))
    with open_run(config, Progress(), use_ray=False) as run:
        run.look_for_held_out()
        run.look_for_held_out()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("WARNING: 2 labelled utterances are trained on though their audio is that of dev")


def test_a_run_says_what_its_filters_are_worth(finished: Path) -> None:
    report = json.loads((finished / "cycles/001/filters.json").read_text())
    assert [row["filter"] for row in report["filters"]] == ["empty", "duplicate", "score"]
    assert report["unfiltered"]["canary"]["labels"] == 6
    decisions = read_decisions(finished / "cycles/001/decisions.parquet")
    for row in report["filters"]:
        assert row["dropped"] == sum(d.rule == row["filter"] for d in decisions)
    assert not (finished / "cycles/000/filters.json").exists()
    assert "What the filters are worth" in write_report(finished).read_text()


def test_other_filters_are_tried_without_labelling_or_changing_the_run(
    finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    own = what_if(finished)
    assert own == json.loads((finished / "cycles/001/filters.json").read_text())
    chain = "[{kind: empty}, {kind: auto, least: 2, otherwise: 0.4}, {kind: score, keep: 1.0}, {kind: score}]"
    arguments = [
        "filter",
        str(finished),
        "--filter",
        chain,
        "--good",
        "50",
        "--json",
        str(tmp_path / "f.json"),
    ]
    assert command(arguments) == 0
    told = json.loads((tmp_path / "f.json").read_text())
    assert [row["filter"] for row in told["filters"]] == ["empty", "auto", "score", "score 2"]
    assert told["good_wer"] == 50
    assert told["filter_hash"] != own["filter_hash"]
    printed = capsys.readouterr().out
    assert "on the canary" in printed
    assert "duration: under 2 s" in printed
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()} == before


def test_the_benchmark_of_filters_reads_runs(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    votes = []
    monkeypatch.setattr(filters, "read_canary", lambda *of: votes.append(of[1].kind) or read_canary(*of))
    for canary, labels in ((False, 5), (True, 6)):  # the broken file has no label
        results = compare(read_runs([finished, finished], canary), 10.0, [0.5])
        assert list(results["cycles"]) == ["1"]
        assert results["cycles"]["1"]["labels"] == 2 * labels
        assert "score" in results["cycles"]["1"]["quantities"]
    assert votes == ["first", "nearest"] * 2  # of cycles 1 and 0 of each


def test_what_cannot_be_tried_is_said_in_one_line(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cycles/000: nothing is labelled here"):
        what_if(finished, cycle=0)
    with pytest.raises(RunError, match="holds no run"):
        what_if(tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'score'"):
        what_if(finished, "[{kind: scor}]")
    with pytest.raises(ConfigError, match="give a list"):
        what_if(finished, "{kind: score}")
    with pytest.raises(ConfigError, match="did you mean 'keep'"):
        what_if(finished, "[{kind: score, keeep: 1}]")
