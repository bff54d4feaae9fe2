"""A local cluster ends with its driver, however the driver ends; workers get the settings and the user's folders."""

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import descendants, outliving

from raysr import cluster
from raysr.cluster import SETTINGS, Connection, connect, worker_environment
from raysr.errors import RunError

DRIVER = """
import time
from raysr.cluster import ClusterConfig, connect
with connect(ClusterConfig(cpus=4, object_store_mb=100)):
    import ray
    @ray.remote
    class Sleeper:
        def pid(self):
            return 1
    sleeper = Sleeper.remote()
    ray.get(sleeper.pid.remote())
    print("ready", flush=True)
    time.sleep(600)
"""

JOINING = """
import sys
from raysr.cluster import ClusterConfig, connect
from raysr.errors import RunError
try:
    with connect(ClusterConfig(address=sys.argv[1])):
        print("joined")
except RunError as error:
    print(error)
"""


@pytest.mark.ray
@pytest.mark.e2e
def test_kill_9_of_the_driver_leaves_nothing_behind() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == b"ready\n"
    started = descendants(driver.pid)
    assert len(started) >= 3
    # two small helpers of Ray's spend a minute trying to tell the dead cluster that it is dead
    ray_agents = {pid for pid in started if b"Agent" in Path(f"/proc/{pid}/cmdline").read_bytes()}
    assert len(ray_agents) <= 2
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert not outliving(started - ray_agents, seconds=20)
    assert not outliving(ray_agents, seconds=120)


@pytest.mark.ray
def test_workers_have_the_settings_of_this_module(ray_cluster: Connection) -> None:
    import ray

    environment = ray.get(ray.remote(lambda: dict(os.environ)).remote())
    assert {name: environment[name] for name in SETTINGS} == SETTINGS
    assert environment["OMP_NUM_THREADS"] == "1"
    assert str(Path(__file__).parent) in environment["PYTHONPATH"].split(os.pathsep)


@pytest.mark.ray
def test_what_is_set_for_a_training_here_is_set_for_it_alone_and_the_users_choice_stays(
    ray_cluster: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster.is_own()
    training = cluster.LOCAL_TRAINING | cluster.UNWATCHED_TRAINING
    before = {name: os.environ.get(name) for name in training}
    assert before != training  # which other clusters that are started from here would have, too
    with cluster.training_environment():
        assert {name: os.environ.get(name) for name in training} == training
    assert {name: os.environ.get(name) for name in training} == before
    monkeypatch.setenv("ONE", "before")
    monkeypatch.setattr(cluster, "_CHOSEN", {"OTHER"})
    monkeypatch.setenv("OTHER", "the user's")
    monkeypatch.delenv("THIRD", raising=False)
    with cluster._environment({"ONE": "1", "OTHER": "1", "THIRD": "1"}):
        assert (os.environ["ONE"], os.environ["OTHER"], os.environ["THIRD"]) == ("1", "the user's", "1")
    assert (os.environ["ONE"], os.environ["OTHER"], os.environ.get("THIRD")) == ("before", "the user's", None)


@pytest.mark.ray
def test_joining_twice_ends_nothing(ray_cluster: Connection) -> None:
    import ray

    with connect() as again:
        assert not again.started
    assert ray.is_initialized()


@pytest.mark.ray
def test_another_token_is_refused_at_once_and_the_right_one_joins(ray_cluster: Connection) -> None:
    def join(**other: str) -> str:
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        joining = [sys.executable, "-c", JOINING, ray_cluster.address]
        done = subprocess.run(
            joining, env=environment | other, stdout=subprocess.PIPE, text=True, check=True, timeout=60
        )
        return done.stdout

    # a cluster that was started here asks for a token
    wrong = join(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    assert wrong.startswith(f"the cluster at {ray_cluster.address} refuses this host's token: copy ")
    assert join(RAY_AUTH_MODE="disabled") == wrong
    assert join(RAY_AUTH_MODE="token") == "joined\n"


def test_the_users_folders_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", "/before")
    assert worker_environment([tmp_path])["PYTHONPATH"] == f"{tmp_path}{os.pathsep}/before"
    assert "PYTHONPATH" not in worker_environment()


def test_an_address_where_nobody_is_is_one_line() -> None:
    with pytest.raises(RunError, match=r"^no Ray cluster at 127\.0\.0\.1:1: Connection refused; [^\n]*$"):
        cluster._check_answers("127.0.0.1:1")
