"""The loop end to end in this process: it resumes after a cut at every step, and stays one run."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from raysr.corpus.manifest import open_manifest, write_jsonl
from raysr.decode.language_model import log_prob
from raysr.errors import ConfigError, CorpusError, RunError
from raysr.ipl.config import RunConfig, read_config
from raysr.ipl.cycle import run_cycles
from raysr.ipl.decisions import read_decisions
from raysr.ipl.folder import STORAGE, owning, place
from raysr.ipl.progress import Progress
from raysr.ipl.run import Run, open_run
from raysr.ipl.steps import Steps
from raysr.pool import Pool, load_entry

TinyConfig = Callable[[Path], dict[str, Any]]
STEPS = [
    "selection",
    "teachers",
    "predictions",
    "decisions",
    "labels",
    "batches",
    "start",
    "student",
    "report",
]


def turn(config: RunConfig) -> Path:
    with open_run(config, Progress(quiet=True), use_ray=False) as run:
        run_cycles(run)
        return run.folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_config: TinyConfig) -> Path:
    return turn(RunConfig.parse(tiny_config(tmp_path_factory.mktemp("finished"))))


def test_a_run_trains_first_labels_then_and_reports_every_cycle(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    assert report["finished"]
    first, second = report["cycles"]
    assert (first["offered_h"], first["kept"], first["label_wer"]) == (0, 0, None)
    assert second["offered"] == 6 == second["kept"] + second["filtered"] + second["failed"]
    assert second["offered_h"] == pytest.approx(6 * 0.6 / 3600)
    assert second["failed"] == 1  # the file that is text
    for cycle in report["cycles"]:
        assert set(cycle["wer"]) == {"greedy", "lm"}
        assert all(wer >= 0 for sets in cycle["wer"].values() for wer in sets.values())
    assert [entry.name for entry in Pool(finished / "pool").entries()] == ["cycle-000", "cycle-001"]
    assert Pool(finished / "pool").get("cycle-001").metrics["parents"] == ["cycle-000"]


def test_every_selected_utterance_has_one_decision(finished: Path) -> None:
    selected = [json.loads(line)["id"] for line in (finished / "cycles/001/selection.jsonl").open()]
    decisions = read_decisions(finished / "cycles/001/decisions.parquet")
    assert [d.id for d in decisions] == selected
    failed = [d for d in decisions if d.status == "failed"]
    assert len(failed) == 1
    assert "a text file, not audio" in str(failed[0].reason)


def test_a_finished_run_started_again_does_nothing(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "cycles").rglob("*") if path.is_file()}
    turn(RunConfig.parse(yaml.safe_load((finished / "config.yaml").read_text())))
    assert before == {
        path: path.stat().st_mtime_ns for path in (finished / "cycles").rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("cut", STEPS)
def test_a_run_cut_off_goes_on_and_does_no_step_twice(
    cut: str, tmp_path: Path, tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig.parse(tiny_config(tmp_path))
    made: list[tuple[int, str]] = []
    recording(monkeypatch, made, cut_after=(1, cut))
    with pytest.raises(KeyboardInterrupt):
        turn(config)
    monkeypatch.undo()
    recording(monkeypatch, made, cut_after=None)
    folder = turn(config)
    assert sorted(made) == sorted((cycle, step) for cycle in (0, 1) for step in STEPS)
    assert json.loads((folder / "report.json").read_text())["finished"]


def recording(
    monkeypatch: pytest.MonkeyPatch, made: list[tuple[int, str]], cut_after: tuple[int, str] | None
) -> None:
    """Note every step that is really done, and die right after one of them is on disk."""

    def wrap(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def step(self: Steps, *arguments: Any) -> Any:
            *others, make = arguments

            def noted() -> Any:
                made.append((self.cycle, name))
                return make()

            result = original(self, *others, noted)
            if (self.cycle, name) == cut_after:
                raise KeyboardInterrupt
            return result

        return step

    for name in STEPS:
        monkeypatch.setattr(Steps, name, wrap(name, getattr(Steps, name)))


def test_labelling_cut_off_labels_only_what_is_missing(
    tmp_path: Path, tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raysr.ipl.labelling.labeller import Labeller

    labelled: list[str] = []
    original = Labeller.__call__

    def dying(self, utterances):
        if len(labelled) >= 4 and not original_only:
            raise KeyboardInterrupt
        labelled.extend(u.id for u in utterances)
        return original(self, utterances)

    monkeypatch.setattr(Labeller, "__call__", dying)
    original_only: list[bool] = []
    config = RunConfig.parse(tiny_config(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        turn(config)
    original_only.append(True)
    turn(config)
    assert sorted(labelled) == sorted(
        f"{name}-{n}" for name in ("unlabelled", "canary:dev") for n in range(6)
    )


def test_another_configuration_is_refused_by_key(finished: Path) -> None:
    config = yaml.safe_load((finished / "config.yaml").read_text())
    config["trainer"]["batch_seconds"] = 77.0
    with pytest.raises(RunError, match=r"made with trainer.batch_seconds: 3\.0, not 77\.0"):
        turn(RunConfig.parse(config))


def test_a_run_may_be_given_more_cycles(tmp_path: Path, tiny_config: TinyConfig) -> None:
    config = tiny_config(tmp_path)
    config["run"]["cycles"] = 1
    turn(RunConfig.parse(config))
    config["run"]["cycles"] = 2
    folder = turn(RunConfig.parse(config))
    assert len(json.loads((folder / "report.json").read_text())["cycles"]) == 2


def test_two_runs_in_one_folder_are_refused_by_pid(tmp_path: Path) -> None:
    import os

    with owning(tmp_path), pytest.raises(RunError, match=str(os.getpid())), owning(tmp_path):
        pass


def test_a_relative_folder_in_a_ray_job_needs_a_storage_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.delenv(STORAGE, raising=False)
    with pytest.raises(RunError, match=STORAGE):
        place("runs/x")
    monkeypatch.setenv(STORAGE, "/storage")
    assert place("runs/x") == Path("/storage/runs/x")
    assert place("/elsewhere") == Path("/elsewhere")


def test_unknown_keys_name_the_nearest(tmp_path: Path, tiny_config: TinyConfig) -> None:
    def refused(**changes: Any) -> str:
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(tiny_config(tmp_path) | changes))
        with pytest.raises(ConfigError) as caught:
            read_config(path)
        return str(caught.value)

    assert "did you mean 'trainer'" in refused(trianer={})
    assert "did you mean 'share'" in refused(selector={"kind": "random", "shair": 0.5})
    assert "did you mean 'batch_seconds'" in refused(trainer={"batch_second": 3})
    assert "first_cycle: 0" in refused(data={"unlabelled": "x.jsonl"})


def test_without_a_teacher_the_mend_is_named(tmp_path: Path, tiny_config: TinyConfig) -> None:
    config = tiny_config(tmp_path)
    config["selector"] = {"kind": "all", "first_cycle": 0}
    with pytest.raises(RunError, match="external"):
        turn(RunConfig.parse(config))


def test_the_folder_of_a_run_is_free_again_afterwards(finished: Path) -> None:
    with owning(finished):
        assert Run is not None


def test_a_run_starts_from_a_student_of_another_run_with_other_tokens(
    tmp_path: Path, tiny_config: TinyConfig, finished: Path
) -> None:
    first = finished / "pool" / "cycle-001"
    config = tiny_config(tmp_path) | {"initializer": {"first": str(first)}}
    config["run"]["cycles"] = 1
    further = tmp_path / "further.txt"
    further.write_text("xylophone\n")  # letters that the other run never saw
    config["lm"] = {"order": 3, "text": str(further)}
    folder = turn(RunConfig.parse(config))
    student, parent = Pool(folder / "pool").get("cycle-000"), Pool(first.parent).get(first.name)
    assert student.metrics["parents"] == [str(first)]
    theirs, ours = load_entry(parent), load_entry(student)
    assert ours.tokeniser.vocab_size > theirs.tokeniser.vocab_size
    # CMVN is not trained: it tells whose encoder this was
    assert torch.equal(ours.model.cmvn_mean, theirs.model.cmvn_mean)
    assert turn(RunConfig.parse(config)) == folder


def test_speech_from_elsewhere_is_rehearsed_and_teaches_the_language_model_nothing(
    tmp_path: Path, tiny_config: TinyConfig
) -> None:
    config = tiny_config(tmp_path) | {"batcher": {"rehearse": str(tmp_path / "elsewhere.jsonl")}}
    spoken = open_manifest(tmp_path / "dev.jsonl")
    elsewhere = [replace(u, id=f"elsewhere-{u.id}", text="xylophone") for u in spoken]
    write_jsonl(tmp_path / "elsewhere.jsonl", elsewhere)
    config["run"]["cycles"] = 1
    folder = turn(RunConfig.parse(config))
    trained_on = [u.id for u in open_manifest(folder / "cycles/000/train/labelled.jsonl")]
    assert trained_on == [f"labelled-{n}" for n in range(6)] + [u.id for u in elsewhere]
    student = load_entry(Pool(folder / "pool").get("cycle-000"))
    assert student.tokeniser.decode(student.tokeniser.encode("xylophone")) == "xylophone"
    assert student.lm is not None
    said, never = (log_prob(student.lm, student.tokeniser.encode(w)) for w in ("one", "xylophone"))
    assert never < said - 10


def test_a_rehearsal_that_is_not_there_is_named_before_anything_is_labelled(
    tmp_path: Path, tiny_config: TinyConfig
) -> None:
    config = tiny_config(tmp_path) | {"batcher": {"rehearse": str(tmp_path / "gone.jsonl")}}
    with pytest.raises(CorpusError, match=r"gone\.jsonl"):
        turn(RunConfig.parse(config))
    assert not list((tmp_path / "run").rglob("predictions*"))
