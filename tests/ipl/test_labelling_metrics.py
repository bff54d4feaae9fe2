"""What Prometheus sees of labelling and of a run, scraped from the endpoint of a running Ray node."""

import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_ray_recogniser import label

from raysr.cluster import Connection
from raysr.corpus.manifest import open_manifest
from raysr.corpus.utterance import Utterance
from raysr.ipl.events import Events
from raysr.ipl.tracking.follower import followed
from raysr.ipl.tracking.trackers import FORGETFUL, trackers

pytestmark = pytest.mark.ray
PATIENCE_S = 60
DROPPED_AFTER_S = 25
"""Ray drops what was not set for two of its intervals, of ten seconds."""
KEPT_TAGS = {"run", "cycle", "kind", "le", "method", "set", "step"}
Key = tuple[str, frozenset[tuple[str, str]]]


def scrape() -> dict[Key, float]:
    """Return (name, tags) → value of every sample of ours that the nodes export."""
    import ray

    samples = {}
    for node in ray.nodes():
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(url) as answer:
            for line in answer.read().decode().splitlines():
                found = re.fullmatch(r"ray_raysr_(\w+)\{(.*)\} (\S+)", line)
                if found:
                    tags = dict(re.findall(r'(\w+)="([^"]*)"', found[2]))
                    kept = frozenset((k, v) for k, v in tags.items() if k in KEPT_TAGS)
                    samples[found[1], kept] = float(found[3])
    return samples


def scrape_until(expected: dict[Key, Any]) -> dict[Key, float]:
    """Scrape until all of ``expected`` is there: the nodes collect every few seconds."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = scrape()
        here = {key: found.get(key) for key in expected}
        if here == expected:
            return found
        assert time.monotonic() < deadline, here
        time.sleep(1)


def test_labelling_can_be_watched(
    ray_cluster: Connection, tmp_path: Path, make_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    corpus = list(open_manifest(make_corpus(tmp_path, "heard", 10)))
    corpus.append(Utterance("missing", str(tmp_path / "missing.wav"), 1.0))
    run = f"run-{time.time_ns()}"
    rows = label("ray", tmp_path / run / "cycles" / "000", open_manifest(corpus))
    assert len(rows) == 11
    tags = frozenset({("run", run), ("cycle", "0")})
    expected = {
        ("labelled_utterances_total", tags): 11.0,
        ("labelled_audio_seconds_total", tags): pytest.approx(7.0),
        ("labelling_failures_total", tags | {("kind", "audio")}): 1.0,
        ("labelling_pending_utterances", tags): 0.0,
        ("labelling_pool_size", tags): 0.0,
        ("labelling_audio_hours_per_second", tags): 0.0,
        ("labelling_block_seconds_count", tags): 3.0,
    }
    found = scrape_until(expected)
    buckets = [
        value for (name, t), value in found.items() if name == "labelling_block_seconds_bucket" and t > tags
    ]
    assert max(buckets) == 3.0


def test_a_run_can_be_watched(ray_cluster: Connection, tmp_path: Path) -> None:
    run = tmp_path / f"run-{time.time_ns()}"
    (run / "cycles" / "001" / "train").mkdir(parents=True)
    (run / "cycles" / "001" / "train" / "metrics.jsonl").write_text(
        '{"step": 10, "loss": 3.5}\n{"step": 20, "loss": 2.5, "data_wait": 0.01}\n'
    )
    (run / "cycles" / "001" / "report.json").write_text(
        '{"cycle": 1, "kept_h": 1.5, "wer": {"lm": {"clean": 0.25}}}'
    )
    events = Events(run / "events.jsonl")
    events.add("step ended", cycle=1, step="label", seconds=12.5)
    events.add("step began", cycle=1, step="train")
    tags = frozenset({("run", run.name), ("cycle", "1")})
    expected = {
        ("training_step", tags): 20.0,
        ("training_loss", tags): 2.5,
        ("training_data_wait", tags): 0.01,
        ("cycle_kept_h", tags): 1.5,
        ("cycle_wer", tags | {("method", "lm"), ("set", "clean")}): 0.25,
        ("step_running", tags | {("step", "label")}): 0.0,
        ("step_running", tags | {("step", "train")}): 1.0,
        ("step_seconds", tags | {("step", "label")}): 12.5,
    }
    with followed(run, trackers(["ray"], run, {}), lambda line: pytest.fail(line), forgetful=FORGETFUL):
        scrape_until(expected)
        time.sleep(DROPPED_AFTER_S)
        scrape_until(expected)
