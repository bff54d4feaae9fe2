"""The supervisor of cluster.yaml's workers, with a stand-in for Ray: what it starts, and when it ends."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from manifests import ROOT, read

# `ray start --block` outlives its raylet, as Ray's does where that ends in an orderly way.
RAY = """#!/bin/bash
echo "$@" >> ~/calls
case $1 in
  health-check) exec test -e ~/head-is-up ;;
  start) (exec -a raylet/raylet sleep 600) & echo $! > ~/raylet; echo "Ray runtime started."
         trap 'kill $!; exit' TERM; while :; do sleep 0.1; done ;;
esac
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a worker's home, prepared by the commands of cluster.yaml up to the start of the supervisor."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ray").write_text(RAY)
    (tmp_path / "bin" / "ray").chmod(0o755)
    (tmp_path / "raysr").mkdir()
    return tmp_path


def commands() -> list[str]:
    (document,) = read(ROOT / "cluster.yaml")
    prepare = document["setup_commands"][-1].replace("/var/tmp/raysr-spill", "$HOME/spill")
    prepare = prepare.replace("$HOME/raysr/.venv/bin", "$HOME/bin")
    return [prepare, *(re.sub(r"sleep \d+", "sleep 0.1", c) for c in document["worker_start_ray_commands"])]


def run(home: Path, command: str) -> None:
    environment = {"HOME": str(home), "PATH": f"{home}/bin:{os.environ['PATH']}", "RAY_HEAD_IP": "192.0.2.10"}
    subprocess.run(["bash", "-c", command], env=environment, check=True, timeout=60)


def starts(home: Path) -> int:
    return (home / "calls").read_text().count("start --block --address=192.0.2.10:6379")


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(home: Path) -> bool:
    pid = (home / "raylet").read_text().strip()
    return Path(f"/proc/{pid}").exists()


@pytest.fixture
def worker(home: Path) -> Iterator[Path]:
    """Return a worker's home whose supervisor runs; it is ended afterwards."""
    (home / "head-is-up").touch()
    for command in commands():
        run(home, command)
    yield home
    (home / "raysr" / "turn").unlink(missing_ok=True)
    subprocess.run(["kill", (home / "raylet").read_text().strip()], capture_output=True)
    until(lambda: not supervisors(home))


def supervisors(home: Path) -> list[str]:
    found = subprocess.run(["pgrep", "-f", f"bash {home}/raysr/supervise"], capture_output=True, text=True)
    return found.stdout.split()


@pytest.mark.e2e
def test_ray_is_started_again_once_the_head_answers(worker: Path) -> None:
    assert starts(worker) == 1
    (worker / "head-is-up").unlink()
    subprocess.run(["kill", (worker / "raylet").read_text().strip()], check=True)
    until(lambda: "Ray has ended here" in (worker / "raysr" / "supervisor.log").read_text())
    time.sleep(0.5)
    assert starts(worker) == 1
    (worker / "head-is-up").touch()
    until(lambda: starts(worker) == 2)
    until(lambda: alive(worker))


@pytest.mark.e2e
def test_a_newer_start_takes_its_turn_and_no_turn_ends_it(worker: Path) -> None:
    before = supervisors(worker)
    (worker / "raysr" / "turn").write_text("another")
    subprocess.run(["kill", (worker / "raylet").read_text().strip()], check=True)
    until(lambda: not set(supervisors(worker)) & set(before))
    assert starts(worker) == 1
