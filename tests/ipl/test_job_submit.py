"""``ray job submit`` runs the loop; the dashboard's REST API shows jobs, trainings and the endpoint."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cluster_head
import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.ray
@pytest.mark.e2e
def test_a_submitted_job_runs_the_loop(tmp_path: Path, tiny_config: Callable[[Path], dict[str, Any]]) -> None:
    config = tiny_config(tmp_path)
    config["run"]["cycles"] = 1
    config["trainer"]["local"] = False
    working_dir = tmp_path / "working-dir"
    shutil.copytree(ROOT / "jobs", working_dir / "jobs")
    (working_dir / "run.yaml").write_text(yaml.safe_dump(config))
    environment = {k: v for k, v in os.environ.items() if k not in {"RAY_ADDRESS", "PYTHONPATH"}}
    environment |= {"RAY_AUTH_MODE": "token"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    relative, absolute = ["python jobs/ipl.py -c run.yaml run.dir=here", "python jobs/ipl.py -c run.yaml"]
    other = tmp_path / "endless"
    endless = f"{absolute} run.dir={other} trainer.local=true trainer.steps=100000 trainer.log_every=1"
    metrics = other / "cycles/000/train/metrics.jsonl"
    arguments = [working_dir, tmp_path / "run/pool", metrics, endless, relative, absolute]
    head = subprocess.run(
        [sys.executable, cluster_head.__file__, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert head.returncode == 0, head.stderr[-2000:]
    told = json.loads(head.stdout.splitlines()[-1])
    assert told["codes"] == [1, 0], told["output"][1][-2000:]
    assert "run.dir here is relative, and a Ray job's working folder is thrown away" in told["output"][0]
    states = {job["entrypoint"]: job["status"] for job in told["jobs"] if job["submission_id"]}
    assert states == {relative: "FAILED", absolute: "SUCCEEDED", endless: "STOPPED"}
    assert told["stopped"].splitlines()[-1] == "stopped; run the same command to resume"
    assert [(run["name"], run["status"]) for run in told["trainings"]] == [("cycle-000", "FINISHED")]
    assert {name: app["status"] for name, app in told["applications"].items()} == {"raysr": "RUNNING"}
    assert json.loads((tmp_path / "run" / "report.json").read_text())["finished"]
