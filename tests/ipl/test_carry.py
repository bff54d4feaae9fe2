"""A run that labels everything once: later cycles carry the labels over, and still decide on every utterance."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raysr.ipl.canary import read_canary
from raysr.ipl.config import RunConfig
from raysr.ipl.cycle import run_cycles
from raysr.ipl.decisions import read_decisions
from raysr.ipl.predictions import Predictions
from raysr.ipl.progress import Progress
from raysr.ipl.run import open_run


def test_what_is_labelled_once_is_decided_on_in_every_cycle(
    tmp_path: Path, tiny_config: Callable[[Path], dict[str, Any]]
) -> None:
    config = tiny_config(tmp_path)
    config["run"]["cycles"] = 3
    config["selector"] = {"kind": "all", "relabel": 0.0}
    with open_run(RunConfig.parse(config), Progress(quiet=True), use_ray=False) as run:
        run_cycles(run)
    first, second = (run.folder / "cycles" / name for name in ("001", "002"))
    before = {p.id: p for p in Predictions(first / "predictions")}
    after = {p.id: p for p in Predictions(second / "predictions")}
    assert after.keys() == before.keys()
    broken = "unlabelled-3"
    assert {name: p.cycle for name, p in after.items()} == {n: 2 if n == broken else 1 for n in after}
    assert all(after[name] == before[name] for name in after if name != broken)
    selected = [json.loads(line)["id"] for line in (second / "selection.jsonl").open()]
    assert [d.id for d in read_decisions(second / "decisions.parquet")] == selected
    teachers = {h.teacher for p, _ in read_canary(second / "canary") for h in p.hypotheses}
    assert teachers == {"cycle-001"}  # the canary is what this cycle's teachers are judged by
