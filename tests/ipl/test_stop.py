"""When a run stops: collapses and plateaus in made-up ledgers, and a run that really collapses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.ipl.collapse import CURES, CollapseConfig, find_collapse
from raysr.ipl.config import RunConfig
from raysr.ipl.cycle import run_cycles
from raysr.ipl.progress import Progress
from raysr.ipl.run import open_run
from raysr.ipl.stop import RunCollapsedError, StopConfig, collapsed, flat
from raysr.model.chunking import CHUNKING
from raysr.pool import Pool
from raysr.serving.models import ModelWatcher

TinyConfig = Callable[[Path], dict[str, Any]]
WELL = {
    "labels": 1000,
    "empty_rate": 0.01,
    "loop_rate": 0.0,
    "kept_share": 0.6,
    "characters_per_s": 12.0,
    "labelled_characters_per_s": 13.0,
    "drift": 0.1,
    "canary_label_wer": 0.2,
    "dev_wer": 0.15,
}


def ledger(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"cycle": cycle, **WELL, **change} for cycle, change in enumerate(changes)]


def found(*changes: dict[str, Any], **limits: Any) -> str | None:
    *before, now = ledger(*changes)
    collapse = find_collapse(now, before, CollapseConfig(**limits))
    return collapse.measure if collapse else None


def test_a_run_that_goes_well_goes_on() -> None:
    assert found({}, {}, {}) is None
    assert found({}) is None


COLLAPSES: list[tuple[str, list[dict[str, Any]]]] = [
    ("empty_rate", [{}, {"empty_rate": 0.51}]),
    ("loop_rate", [{}, {"loop_rate": 0.31}]),
    ("character_rate", [{}, {"characters_per_s": 5.0}]),
    ("character_rate", [{}, {"characters_per_s": 33.0}]),
    ("drift", [{}, {"drift": 0.51}]),
    ("canary_rise", [{}, {"canary_label_wer": 0.25}, {"canary_label_wer": 0.31}]),
    ("kept_share", [{}, {"kept_share": 0.05}]),
    ("student_rise", [{}, {"dev_wer": 0.2}, {"dev_wer": 0.36}]),
]


@pytest.mark.parametrize(("measure", "changes"), COLLAPSES)
def test_each_mode_is_found_named_and_can_be_switched_off(
    measure: str, changes: list[dict[str, Any]]
) -> None:
    assert found(*changes) == measure
    assert found(*changes, **{measure: None}) is None
    *before, now = ledger(*changes)
    stop = collapsed(now, before, StopConfig())
    assert stop is not None
    assert (stop.kind, stop.cycle, stop.measure) == ("collapse", len(changes) - 1, measure)
    assert CURES[stop.measure] in stop.reason
    assert f"stop.collapse.{measure}" in stop.reason
    assert collapsed(now, before, StopConfig(enabled=False)) is None


@pytest.mark.parametrize(
    "changes",
    [
        [{}, {"empty_rate": 0.5, "loop_rate": 0.3, "drift": 0.5, "characters_per_s": 5.2}],
        [{}, {"canary_label_wer": 0.3, "kept_share": 0.06, "dev_wer": 0.35}],
    ],
)
def test_limits_themselves_are_no_collapse(changes: list[dict[str, Any]]) -> None:
    assert found(*changes) is None


def test_who_never_learned_cannot_collapse() -> None:
    assert found({"dev_wer": 0.95}, {"dev_wer": 1.6}) is None
    assert found({"dev_wer": 0.7}, {"dev_wer": 1.6}) == "student_rise"


def test_a_strict_filter_from_the_start_is_no_collapse() -> None:
    strict = {"kept_share": 0.05}
    assert found(strict) is None
    assert found({"labels": 0, "kept_share": None}, strict, strict) is None
    assert found(strict, {"kept_share": 0.004}) == "kept_share"


def test_the_first_change_of_all_labels_is_no_collapse() -> None:
    assert found({"drift": None}, {"drift": 0.9}) is None


def test_without_transcripts_the_first_labels_say_how_fast_speech_is() -> None:
    bare = {"labelled_characters_per_s": None}
    assert found({**bare, "characters_per_s": 12}, {**bare, "characters_per_s": 4}) == "character_rate"
    assert found({**bare, "labels": 0, "characters_per_s": None}, {**bare, "characters_per_s": 4}) is None


def test_of_few_labels_nothing_is_said_and_of_the_student_all_the_same() -> None:
    assert found({}, {"labels": 49, "empty_rate": 1.0}) is None
    assert found({}, {"labels": 49, "dev_wer": 0.9}) == "student_rise"


def test_what_was_not_measured_is_no_collapse() -> None:
    nothing = dict.fromkeys(WELL)
    assert found(nothing, nothing, nothing) is None
    assert found(nothing, {}) is None


def series(*values: float | None) -> list[dict[str, Any]]:
    return [{"cycle": n, "dev_wer": value} for n, value in enumerate(values)]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(1, 4), st.floats(0, 0.2))
def test_a_run_is_flat_once_its_best_is_patience_cycles_old(
    values: list[float], patience: int, gain: float
) -> None:
    best, best_at = values[0], 0
    for n, value in enumerate(values):
        if value < best - gain:
            best, best_at = value, n
    stop = flat(series(*values), StopConfig(patience=patience, gain=gain))
    assert (stop is not None) == (len(values) - 1 - best_at >= patience)


def test_flat_says_what_and_for_how_long() -> None:
    stop = flat(series(0.3, None, 0.2, 0.21, 0.2), StopConfig(patience=2))
    assert stop is not None
    assert (stop.kind, stop.cycle, stop.measure, stop.value, stop.limit) == ("flat", 4, "dev_wer", 0.2, 0.2)
    assert "20.0%" in stop.reason
    assert "2 cycles" in stop.reason
    assert flat(series(0.3, 0.3, 0.3), StopConfig()) is None
    assert flat(series(0.3, 0.3), StopConfig(patience=1, enabled=False)) is None
    assert flat(
        [{"cycle": 0, "drift": 0.1}, {"cycle": 1, "drift": 0.1}], StopConfig(patience=1, metric="drift")
    )


def turn(config: dict[str, Any]) -> Path:
    with open_run(RunConfig.parse(config), Progress(quiet=True), use_ray=False) as run:
        run_cycles(run)
        return run.folder


def report_of(config: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads((Path(config["run"]["dir"]) / "report.json").read_text()))


def test_a_run_whose_labels_are_empty_ends_before_a_student_learns_them(
    tmp_path: Path, tiny_config: TinyConfig
) -> None:
    config = tiny_config(tmp_path) | {"stop": {"collapse": {"at_least": 3}}}
    for _ in range(2):  # started again it says the same, and does not go on
        with pytest.raises(
            RunCollapsedError, match=r"cycle 1 has collapsed: 100% of the labels are empty.*cycle-000"
        ):
            turn(config)
        report = report_of(config)
        assert not report["finished"]
        assert report["best"] == "cycle-000"
        assert (report["stopped"]["measure"], report["stopped"]["cycle"]) == ("empty_rate", 1)
        assert [entry.name for entry in Pool(tmp_path / "run" / "pool").entries()] == ["cycle-000"]
    turn(config | {"stop": {"enabled": False}})
    report = report_of(config)
    assert report["finished"]
    assert report["stopped"] is None
    assert len(report["cycles"]) == 2


def test_a_run_that_gets_no_better_ends_well_and_stays_ended(tmp_path: Path, tiny_config: TinyConfig) -> None:
    config = tiny_config(tmp_path) | {"stop": {"patience": 1, "gain": 1.0}}
    config["run"]["cycles"] = 4
    for _ in range(2):
        turn(config)
        report = report_of(config)
        assert report["finished"]
        assert report["stopped"]["kind"] == "flat"
        assert len(report["cycles"]) == 2
    turn(config | {"stop": {"patience": 2, "gain": 1.0}})
    assert len(report_of(config)["cycles"]) == 3


def test_a_student_that_collapsed_is_published_for_nobody(tmp_path: Path, tiny_config: TinyConfig) -> None:
    config = tiny_config(tmp_path) | {"initializer": {"kind": "scratch"}}
    config["stop"] = {"collapse": {"student_rise": 0.05}}  # most of the texts are too long for half a second
    config["model"]["encoder"]["dropout"] = config["model"]["decoder"]["dropout"] = 0
    config["decode"] = {"method": "greedy"}
    config["data"]["dev"] = config["data"]["labelled"]  # what it knows by heart
    config["trainer"] |= {
        "steps_by_cycle": [100, 1],
        "batch_seconds": 10.0,
        "optimiser": {"lr": 0.01},
        "schedule": {"warmup_steps": 5},
        "augment": {"spec": {"freq_masks": 0, "time_masks": 0}, "warp": {"tempo": 0, "frequency": 0}},
    }
    with pytest.raises(RunCollapsedError, match=r"cycle 1 has collapsed: WER of the student on dev is"):
        turn(config)
    pool = Pool(tmp_path / "run" / "pool")
    good, bad = pool.entries()
    assert good.unfit is None
    assert bad.unfit is not None
    assert "student on dev" in bad.unfit
    assert [entry.name for entry in pool.newest(5)] == ["cycle-000"]
    assert pool.latest() == pool.best() == good
    watcher = ModelWatcher(str(pool.root), None, chunking=CHUNKING)
    assert watcher.poll()
    assert watcher.current is not None
    assert watcher.current.version == "cycle-000"
    assert watcher.refused == {"cycle-001": bad.unfit}
