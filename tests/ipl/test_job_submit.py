"""``ray job submit`` runs the loop; the dashboard's REST API shows jobs, trainings and the endpoint."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
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


@pytest.mark.ray
@pytest.mark.e2e
@pytest.mark.timeout(400)
def test_a_run_has_one_job_at_a_time_which_can_be_followed_stopped_and_resumed(
    tmp_path: Path,
    tiny_config: Callable[[Path], dict[str, Any]],
    environment: dict[str, str],
    cluster: tuple[str, str],
) -> None:
    def start(*arguments: object) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "raysr.cli", "jobs", *map(str, arguments), "--address", cluster[1]]
        elsewhere = environment | {"RAY_ADDRESS": "127.0.0.1:1"}  # what --address says holds
        return subprocess.Popen(
            command, env=elsewhere, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def ask(*arguments: object, code: int = 0) -> str:
        asked = start(*arguments)
        told, errors = asked.communicate(timeout=200)
        assert asked.returncode == code, told + errors
        return errors if code and not told else told

    config = tiny_config(tmp_path)
    folder = tmp_path / "working-dir"
    folder.mkdir()
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    submit = ["submit", "-c", folder / "run.yaml", "--working-dir", folder]
    endless = [
        *submit,
        "--storage",
        tmp_path,
        "run.dir=endless",
        "trainer.local=true",
        "trainer.steps=100000",
    ]
    both = [start(*endless, "trainer.log_every=1") for _ in range(2)]
    told = [one.communicate(timeout=200) for one in both]
    assert [one.returncode for one in both] == [0, 0], told
    first = {output.partition(":")[0] for output, _ in told}
    assert len(first) == 1
    assert sorted("works on this run already" in output for output, _ in told) == [False, True]

    (name,) = first
    metrics = tmp_path / "endless/cycles/000/train/metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert ask("stop", tmp_path / "endless") == f"{name}: stopped\n"
    again = ask("resume", name, "--working-dir", folder)
    assert again == f"{name[:-1]}2: submitted ({tmp_path / 'endless'})\n"
    assert ask("stop", f"{name[:-1]}2") == f"{name[:-1]}2: stopped\n"
    rows = [line.split() for line in ask("list").splitlines() if line.startswith("endless-")]
    assert [row[:2] for row in rows] == [
        [name, "stopped"],
        [f"{name[:-1]}2", "stopped"],
    ]

    failed = ask(*submit, "--follow", f"run.dir={tmp_path / 'bad'}", "data.labelled=nowhere.jsonl", code=2)
    assert "nowhere.jsonl: no such manifest" in failed
    assert "no job or run here is called nobody; jobs: endless-" in ask("follow", "nobody", code=2)
    assert "run.dir here is relative" in ask(*submit, "run.dir=here", code=2)
