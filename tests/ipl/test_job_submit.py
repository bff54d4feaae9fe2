"""``ray job submit`` runs the loop; the dashboard's REST API shows jobs, trainings and the endpoint."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cluster_user
import pytest
import yaml

from raysr.ports import free_port

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """The environment of a person who works on a cluster."""
    inherited = {k: v for k, v in os.environ.items() if k not in {"RAY_ADDRESS", "PYTHONPATH"}}
    path = f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"
    return inherited | {"RAY_AUTH_MODE": "token", "PATH": path}


@pytest.fixture(scope="module")
def cluster(environment: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Address and dashboard of a cluster of its own.

    `ray.init` leaves no choice of the port that takes jobs: two clusters on a machine would share it.
    """
    subprocess.run(["ray", "get-auth-token", "--generate"], env=environment, check=True, capture_output=True)
    port, dashboard_port = free_port(0), free_port(0)
    command = ["ray", "start", "--head", "--block", "--num-cpus=8", f"--object-store-memory={200 << 20}"]
    command += ["--node-ip-address=127.0.0.1", f"--port={port}", f"--ray-client-server-port={free_port(0)}"]
    command += [f"--dashboard-port={dashboard_port}", f"--dashboard-agent-listen-port={free_port(0)}"]
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        head = subprocess.Popen(
            [*command, f"--temp-dir={folder}"],
            env=environment | {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert head.stdout is not None
        try:
            assert any("Ray runtime started" in line for line in head.stdout)
            yield f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard_port}"
        finally:
            head.terminate()
            head.wait(60)


@pytest.mark.ray
@pytest.mark.e2e
@pytest.mark.timeout(400)
def test_a_submitted_job_runs_the_loop(
    tmp_path: Path,
    tiny_config: Callable[[Path], dict[str, Any]],
    environment: dict[str, str],
    cluster: tuple[str, str],
) -> None:
    config = tiny_config(tmp_path)
    config["run"]["cycles"] = 1
    config["trainer"]["local"] = False
    working_dir = tmp_path / "working-dir"
    shutil.copytree(ROOT / "jobs", working_dir / "jobs")
    (working_dir / "run.yaml").write_text(yaml.safe_dump(config))
    relative, absolute = ["python jobs/ipl.py -c run.yaml run.dir=here", "python jobs/ipl.py -c run.yaml"]
    other = tmp_path / "endless"
    endless = f"{absolute} run.dir={other} trainer.local=true trainer.steps=100000 trainer.log_every=1"
    metrics = other / "cycles/000/train/metrics.jsonl"
    arguments = [*cluster, working_dir, tmp_path / "run/pool", metrics, endless, relative, absolute]
    user = subprocess.run(
        [sys.executable, cluster_user.__file__, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert user.returncode == 0, user.stderr[-2000:]
    told = json.loads(user.stdout.splitlines()[-1])
    assert told["codes"] == [1, 0], told["output"][1][-2000:]
    assert "run.dir here is relative, and a Ray job's working folder is thrown away" in told["output"][0]
    states = {job["entrypoint"]: job["status"] for job in told["jobs"] if job["submission_id"]}
    assert states == {relative: "FAILED", absolute: "SUCCEEDED", endless: "STOPPED"}
    assert told["stopped"].splitlines()[-1] == "stopped; run the same command to resume"
    assert [(run["name"], run["status"]) for run in told["trainings"]] == [("cycle-000", "FINISHED")]
    assert {name: app["status"] for name, app in told["applications"].items()} == {"raysr": "RUNNING"}
    assert json.loads((tmp_path / "run" / "report.json").read_text())["finished"]
