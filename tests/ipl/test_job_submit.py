"""``ray job submit`` runs the loop, and the dashboard's REST API shows the job and its trainings."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
HEAD = """
import json, subprocess, sys, urllib.request
from raysr.cluster import ClusterConfig, connect
port, folder, *entry_points = sys.argv[1:]
url = f"http://127.0.0.1:{port}"
with connect(ClusterConfig(dashboard=True, dashboard_port=int(port))):
    token = subprocess.run(["ray", "get-auth-token"], capture_output=True, text=True).stdout.strip()
    def get(path):
        request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {token}"})
        return json.load(urllib.request.urlopen(request))
    command = ["ray", "job", "submit", "--address", url, "--working-dir", folder, "--"]
    jobs = [subprocess.run(command + entry.split(), capture_output=True, text=True) for entry in entry_points]
    told = {"codes": [job.returncode for job in jobs], "output": [job.stdout for job in jobs],
            "jobs": get("/api/jobs/"), "trainings": get("/api/train/v2/runs/v1")["train_runs"]}
    print(json.dumps(told))
"""


@pytest.mark.ray
@pytest.mark.e2e
def test_a_submitted_job_runs_the_loop(tmp_path: Path, tiny_config: Callable[[Path], dict[str, Any]]) -> None:
    config = tiny_config(tmp_path)
    config["run"]["cycles"] = 1
    config["trainer"]["local"] = False
    working_dir = tmp_path / "working-dir"
    shutil.copytree(ROOT / "jobs", working_dir / "jobs")
    (working_dir / "run.yaml").write_text(yaml.safe_dump(config))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if k not in {"RAY_ADDRESS", "PYTHONPATH"}}
    environment |= {"RAY_AUTH_MODE": "token"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    relative, absolute = ["python jobs/ipl.py -c run.yaml run.dir=here", "python jobs/ipl.py -c run.yaml"]
    head = subprocess.run(
        [sys.executable, "-c", HEAD, str(port), str(working_dir), relative, absolute],
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
    assert states == {relative: "FAILED", absolute: "SUCCEEDED"}
    assert [(run["name"], run["status"]) for run in told["trainings"]] == [("cycle-000", "FINISHED")]
    assert json.loads((tmp_path / "run" / "report.json").read_text())["finished"]
