"""What Prometheus sees of labelling, scraped from the endpoint of a running Ray node."""

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

pytestmark = pytest.mark.ray
PATIENCE_S = 60
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
                    kept = frozenset((k, v) for k, v in tags.items() if k in {"run", "cycle", "kind", "le"})
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
