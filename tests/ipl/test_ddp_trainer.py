"""The default trainer's options reach the training loop, and what the loop finds out reaches the run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from raysr.corpus.manifest import open_manifest, write_jsonl
from raysr.ipl.config import RunConfig
from raysr.ipl.cycle import run_cycles
from raysr.ipl.progress import Progress
from raysr.ipl.run import open_run
from raysr.pool import Pool

TinyConfig = Callable[[Path], dict[str, Any]]


def test_a_run_streams_its_features_and_publishes_the_best_average_on_dev(
    tmp_path: Path, tiny_config: TinyConfig
) -> None:
    config = tiny_config(tmp_path)
    config["run"]["cycles"] = 1
    config["trainer"] |= {
        "steps": 6,
        "checkpoint_every": 2,
        "log_every": 2,
        "reading": {"stream": True, "cache": "disk"},
        "ema_decay": 0.9,
        "keep_best": 3,
        "final": "best",
    }
    labelled = list(open_manifest(config["data"]["labelled"]))
    write_jsonl(Path(config["data"]["labelled"]), [u.with_text("one") for u in labelled])
    (tmp_path / "audio" / "labelled-3.wav").write_text("this is text: a broken file")
    with open_run(RunConfig.parse(config), Progress(quiet=True), use_ray=False) as run:
        run_cycles(run)
        train = run.folder / "cycles" / "000" / "train"
        published = load_file(Pool(run.folder / "pool").get("cycle-000").path / "model.safetensors")
    left_out = [json.loads(line) for line in (train / "left-out.jsonl").open()]
    assert {row["id"] for row in left_out} == {"labelled-3"}
    assert "a text file, not audio" in left_out[0]["reason"]
    assert not [line for line in (train / "metrics.jsonl").open() if "NaN" in line]
    scores = {folder: float((folder / "dev_loss.json").read_text()) for folder in train.glob("checkpoint-*")}
    assert len(scores) == 3
    best = load_file(min(scores, key=scores.__getitem__) / "ema.safetensors")
    assert all(torch.equal(published[name], weight) for name, weight in best.items())
    kept = run.folder / "features" / "on-the-fly"
    assert list(kept.rglob("*.arrow")) or list(kept.rglob("*"))
