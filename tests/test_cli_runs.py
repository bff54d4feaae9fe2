"""The commands that turn the loop: `ipl`, `label`, `train`, and the demo as a person would start it."""

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import PATIENCE_S, descendants, outliving, start, wait_until

from raysr.cli import app as cli
from raysr.cluster import Connection
from raysr.corpus.manifest import open_manifest
from raysr.demo import cycle_table, held_out_utterance

pytestmark = pytest.mark.ray


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
    assert cli.run(["ipl", "--config", str(recipe), "--next-cycle"]) == 0
    assert (folder / "pool/cycle-000/manifest.json").read_bytes() == first
    cycles = json.loads((folder / "report.json").read_text())["cycles"]
    assert [cycle["offered"] for cycle in cycles] == [0, 6]
    assert (folder / "report.html").is_file()
    events = [json.loads(line) for line in (folder / "events.jsonl").open()]
    had = [(event["cycle"], event["cpus"]) for event in events if event["event"] == "cycle began"]
    assert had == [(cycle, len(os.sched_getaffinity(0))) for cycle in (0, 0, 1)], "our own Ray declares more"
    assert f"raysr serve --pool {folder / 'pool'}" in capsys.readouterr().out


def test_label_writes_what_the_filters_keep(ray_cluster: Connection, recipe: Path) -> None:
    out = recipe.parent / "kept.jsonl"
    assert cli.run(["train", "--config", str(recipe)]) == 0
    assert cli.run(["label", "--config", str(recipe), "--out", str(out), "run.cycles=1"]) == 0
    kept = list(open_manifest(out))
    assert sorted(utterance.id for utterance in kept) == [f"unlabelled-{n}" for n in range(6)]
    assert all(utterance.text is not None for utterance in kept)


@pytest.mark.e2e
def test_sigterm_ends_a_run_and_its_ray_as_ctrl_c_does(recipe: Path) -> None:
    run = start("ipl", "--config", recipe, "trainer.steps=100000", "trainer.log_every=1")
    metrics = recipe.parent / "run/cycles/000/train/metrics.jsonl"
    wait_until(metrics.exists, run)
    ray = descendants(run.pid)
    assert len(ray) >= 3
    run.terminate()
    run.terminate()  # `timeout` sends it twice
    _, told = run.communicate(timeout=60)
    assert (run.returncode, told) == (143, "stopped; run the same command to resume\n")
    assert not outliving(ray, seconds=20)


@pytest.mark.e2e
def test_a_dashboard_port_in_use_is_one_line_with_its_option(recipe: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = "{}:{}".format(*taken.getsockname())
        dashboard = ["cluster.dashboard=true", f"cluster.dashboard_port={address.rpartition(':')[2]}"]
        run = start("ipl", "--config", recipe, *dashboard)
        _, told = run.communicate(timeout=60)
    assert run.returncode == 2
    reason = f"error: cannot listen on {address}: Address already in use; "
    assert told == f"{reason}choose another cluster.dashboard_port, or cluster.dashboard=false\n"


@pytest.mark.e2e
@pytest.mark.timeout(2 * PATIENCE_S)
def test_the_demo_resumes_after_ctrl_c_and_ends_with_both_transcripts(tmp_path: Path) -> None:
    run = tmp_path / "demo"
    command = ["demo", "--short", "--dir", run]
    first = start(*command)
    wait_until((run / "pool" / "cycle-000").exists, first)
    first.send_signal(signal.SIGINT)
    _, told = first.communicate(timeout=60)
    assert (first.returncode, told) == (130, "stopped; run the same command to resume\n")
    entry = (run / "pool/cycle-000/manifest.json").read_bytes()

    second = start(*command)
    text, errors = second.communicate(timeout=PATIENCE_S)
    assert (second.returncode, errors) == (0, "")
    assert "(raylet)" not in text
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


def test_the_table_has_a_row_a_cycle_and_a_column_a_score() -> None:
    empty = {"offered_h": 0.0, "kept_h": 0.0, "filtered_h": 0.0, "failed_h": 0.0, "label_wer": None}
    cycles = [empty | {"wer": {"greedy": {"clean": 0.5}, "lm": {"clean": 0.25}}}]
    cycles.append(cycles[0] | {"offered_h": 1.5, "kept_h": 1.0, "label_wer": 0.125})
    table = cycle_table(cycles)
    rows = list(zip(*(list(column.cells) for column in table.columns), strict=True))
    assert rows[0] == ("0", "–", "–", "–", "–", "–", "50.0", "25.0")
    assert rows[1] == ("1", "1.50", "1.00", "0.00", "0.00", "12.5", "50.0", "25.0")
