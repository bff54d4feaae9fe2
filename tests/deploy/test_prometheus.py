"""A real Prometheus, with our configuration and alerts, has all of our metrics from a real Ray node."""

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysr.cluster import Connection
from raysr.ipl.labelling.labeller import BlockReport
from raysr.ipl.labelling.metrics import LabellingMetrics
from raysr.ipl.tracking.trackers import RayGauges
from raysr.ports import free_port
from raysr.serving.metrics import MEASURES
from raysr.serving.ray_metrics import RayMetrics
from raysr.train.metrics import StepMetrics

pytestmark = pytest.mark.ray
MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
SUFFIX = {"counter": "_total", "gauge": "", "histogram": "_bucket"}
PATIENCE_S = 90.0
LATE = 30.0

Ask = Callable[[str], Any]


@pytest.fixture
def prometheus(ray_cluster: Connection, tmp_path: Path) -> Iterator[Ask]:
    """Run Prometheus as we configure it, but for where Ray's list of nodes lies and how often it looks."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed; Debian's package of that name has it")
    import ray

    nodes = [
        f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in ray.nodes() if node["Alive"]
    ]
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (listed,) = config["scrape_configs"][0]["file_sd_configs"]
    (tmp_path / "nodes.json").write_text(json.dumps([{"targets": nodes, "labels": {"job": "ray"}}]))
    listed["files"] = [str(tmp_path / "nodes.json")]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(MONITORING / "alerts.yml", tmp_path)
    address = f"127.0.0.1:{free_port(0)}"
    command = [
        program,
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
    ]
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen([*command, f"--web.listen-address={address}"], stderr=log)

    def ask(path: str) -> Any:
        with urllib.request.urlopen(f"http://{address}/api/v1/{path}", timeout=20) as answer:
            return json.load(answer)["data"]

    try:
        until(lambda: answers(address), (tmp_path / "log").read_text)
        yield ask
    finally:
        running.terminate()
        running.wait(20)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def until(holds: Callable[[], bool], told: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, told()
        time.sleep(0.5)


def test_prometheus_has_all_metrics_and_judges_all_alerts(prometheus: Ask, tmp_path: Path) -> None:
    labelling = LabellingMetrics("run", 1, 10)
    labelling.block(BlockReport(8, 20.0, {"audio": 1}), 2.0)
    labelling.pool(2)
    run = RayGauges(tmp_path / "run", {})
    run.training(1, 10, {field.name: 0.5 for field in fields(StepMetrics) if field.name != "step"})
    run.cycle(1, {"kept_h": 1.5, "wer/lm/clean": 0.25})
    run.step(1, "student", None)
    run.step(1, "predictions", 12.0)
    endpoint = RayMetrics()

    def tell() -> None:
        """Set all of it again: Ray drops a gauge that is not."""
        run.flush()
        for name, measure in MEASURES.items():
            value = LATE if name == "lag_seconds" else 1.0
            endpoint.record(name, value, dict.fromkeys(measure.tags, "some"))

    expected = {f"ray_raysr_{name}{SUFFIX[measure.kind]}" for name, measure in MEASURES.items()}
    expected |= {f"ray_raysr_training_{field.name}" for field in fields(StepMetrics)}
    expected |= {
        f"ray_raysr_{name}" for name in ("cycle_kept_h", "cycle_wer", "step_running", "step_seconds")
    }
    expected |= {
        f"ray_raysr_{name}"
        for name in (
            "labelled_utterances_total",
            "labelled_audio_seconds_total",
            "labelling_failures_total",
            "labelling_audio_hours_per_second",
            "labelling_pool_size",
            "labelling_pending_utterances",
            "labelling_block_seconds_bucket",
        )
    }

    def missing() -> set[str]:
        tell()
        return expected - set(prometheus("label/__name__/values"))

    found: list[dict[str, Any]] = []

    def alarmed() -> bool:
        tell()
        found[:] = [
            a for a in prometheus("alerts")["alerts"] if a["labels"]["alertname"] == "RaysrServingLag"
        ]
        return bool(found)

    until(lambda: not missing(), missing)
    until(alarmed, list)
    assert float(found[0]["value"]) == LATE
    rules = [rule for group in prometheus("rules")["groups"] for rule in group["rules"]]
    written = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    assert len(rules) == sum(len(group["rules"]) for group in written)
    assert {rule["name"] for rule in rules if rule["health"] == "err"} == set()
