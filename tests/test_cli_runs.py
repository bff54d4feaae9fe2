"""The commands that turn the loop: `ipl`, `label`, `train`, and the demo as a person would start it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysr.cli import app as cli
from raysr.cluster import Connection
from raysr.corpus.manifest import open_manifest
from raysr.demo import cycle_table, held_out_utterance

pytestmark = pytest.mark.ray
DEMO_SECONDS = 280


@pytest.fixture
def recipe(tmp_path: Path, make_corpus: Callable[..., Path]) -> Path:
    """A configuration of a run that takes seconds, its plug-ins in this process."""
    data: dict[str, Any] = {
        name: str(make_corpus(tmp_path, name, 6, seed)) for seed, name in enumerate(["labelled", "dev"])
    }
    data["unlabelled"] = str(make_corpus(tmp_path, "unlabelled", 6, 9, text=False))
    small = {"layers": 1, "heads": 2, "feed_forward": 16}
    config = {
        "run": {"dir": str(tmp_path / "run"), "cycles": 2},
        "data": data,
        "lm": {"order": 2},
        "model": {"encoder": {"dim": 16, **small}, "decoder": small},
        "recogniser": {"kind": "local"},
        "filter": [],
        "trainer": {"local": True, "steps": 2, "tuning": {"lm_weights": [0.5], "length_bonuses": [0.0]}},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_train_then_ipl_is_one_run(
    ray_cluster: Connection, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = recipe.parent / "run"
    assert cli.run(["train", "--config", str(recipe)]) == 0
    first = (folder / "pool/cycle-000/manifest.json").read_bytes()
    assert sorted(path.name for path in (folder / "pool").iterdir()) == ["cycle-000"]
    assert cli.run(["ipl", "--config", str(recipe)]) == 0
    assert (folder / "pool/cycle-000/manifest.json").read_bytes() == first
    cycles = json.loads((folder / "report.json").read_text())["cycles"]
    assert [cycle["offered"] for cycle in cycles] == [0, 6]
    assert (folder / "report.html").is_file()
    assert f"raysr serve --pool {folder / 'pool'}" in capsys.readouterr().out


def test_label_writes_what_the_filters_keep(ray_cluster: Connection, recipe: Path) -> None:
    out = recipe.parent / "kept.jsonl"
    assert cli.run(["train", "--config", str(recipe)]) == 0
    assert cli.run(["label", "--config", str(recipe), "--out", str(out), "run.cycles=1"]) == 0
    kept = list(open_manifest(out))
    assert sorted(utterance.id for utterance in kept) == [f"unlabelled-{n}" for n in range(6)]
    assert all(utterance.text is not None for utterance in kept)


@pytest.mark.e2e
@pytest.mark.timeout(2 * DEMO_SECONDS)
def test_the_demo_resumes_after_ctrl_c_and_ends_with_both_transcripts(tmp_path: Path) -> None:
    run = tmp_path / "demo"
    first = start_demo(run)
    wait_for(run / "pool" / "cycle-000", first)
    os.kill(first.pid, signal.SIGINT)
    assert first.wait(60) == 130
    assert "stopped; run the same command to resume" in output(first)
    entry = (run / "pool/cycle-000/manifest.json").read_bytes()

    second = start_demo(run)
    text = output(second)
    assert second.returncode == 0, text
    assert (run / "pool/cycle-000/manifest.json").read_bytes() == entry
    for part in (
        "over HTTP",
        "as a live stream",
        held_out_utterance().text or "",
        "raysr serve --pool",
        "report.html",
    ):
        assert part in text
    report = json.loads((run / "report.json").read_text())
    assert report["finished"]
    assert set(report["cycles"][1]["wer"]["lm"]) == {"clean", "music", "engine"}


def start_demo(run: Path) -> "subprocess.Popen[str]":
    """Start the short demo with a Ray of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [
        sys.executable,
        "-c",
        "from raysr.cli import main; main()",
        "demo",
        "--short",
        "--dir",
        str(run),
    ]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def output(process: "subprocess.Popen[str]") -> str:
    return process.communicate(timeout=DEMO_SECONDS)[0]


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + DEMO_SECONDS
    while not path.exists():
        assert process.poll() is None, output(process)
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.1)


def test_the_table_has_a_row_a_cycle_and_a_column_a_score() -> None:
    empty = {"offered_h": 0.0, "kept_h": 0.0, "filtered_h": 0.0, "failed_h": 0.0, "label_wer": None}
    cycles = [empty | {"wer": {"greedy": {"clean": 0.5}, "lm": {"clean": 0.25}}}]
    cycles.append(cycles[0] | {"offered_h": 1.5, "kept_h": 1.0, "label_wer": 0.125})
    table = cycle_table(cycles)
    rows = list(zip(*(list(column.cells) for column in table.columns), strict=True))
    assert rows[0] == ("0", "–", "–", "–", "–", "–", "50.0", "25.0")
    assert rows[1] == ("1", "1.50", "1.00", "0.00", "0.00", "12.5", "50.0", "25.0")
