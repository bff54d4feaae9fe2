"""The network's pre-flight on Ray: on the one node of the suite's cluster, and on two hosts of which one is cut off."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import hosts
from benchmarks.hosts import Hosts, address
from raysr.cli.app import run
from raysr.cluster import Connection
from raysr.train.checkpoint import absent
from raysr.train.job import TrainJob
from raysr.train.network.preflight import Order
from tests.train.jobs import small_job
from tests.train.ray_workers import FIT

HEAD = f"{address(1)}:6379"
IMPATIENT = f"""
from raysr.cluster import ClusterConfig
from raysr.errors import RunError
from raysr.train.network.preflight import Order
from raysr.train.network.settings import NetworkConfig
from raysr.train.ray_preflight import preflight_at
try:
    preflight_at(ClusterConfig(address="{HEAD}"), Order(NetworkConfig(timeout_s=45)))
except RunError as error:
    print(error)
"""


@pytest.mark.ray
def test_a_cluster_of_one_node_is_told_to_have_no_network(
    ray_cluster: Connection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from raysr.train.ray_preflight import preflight_cluster

    report = preflight_cluster(Order(storage=tmp_path))
    assert report.passed
    assert [rank.member.rank for rank in report.ranks] == [0]
    assert run(["preflight", "--cluster", "--dir", str(tmp_path), "--json", str(tmp_path / "found")]) == 0
    assert "storage" in capsys.readouterr().out
    found = json.loads((tmp_path / "found").read_text())
    assert found["pairs"] == []
    assert "one host: nothing crosses a network" in [finding["found"] for finding in found["findings"]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all hosts see."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def cluster(shared: Path) -> Iterator[tuple[Hosts, dict[str, str]]]:
    """Start a Ray of two hosts with a link of 100 Mbit/s."""
    if reason := hosts.missing():
        pytest.skip(reason)
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with Hosts(2, mbit=100, shared=[shared]) as both:
        for host, place in ((1, ["--head", "--port=6379"]), (2, [f"--address={HEAD}"])):
            started = both.run(
                host,
                [
                    Path(sys.executable).with_name("ray"),
                    "start",
                    "--block",
                    "--num-cpus=1",
                    f"--node-ip-address={address(host)}",
                    "--object-store-memory=100000000",
                    "--disable-usage-stats",
                    *place,
                    *(["--include-dashboard=false"] if host == 1 else []),
                ],
                {**kept, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            said = []
            while "Ray runtime started" not in (line := started.stdout.readline()):
                said.append(line)
                assert line, "".join(said)
        yield both, environment


@pytest.mark.e2e
def test_a_training_across_hosts_finds_its_way_and_is_refused_where_its_folder_is_not_shared(
    cluster: tuple[Hosts, dict[str, str]], shared: Path
) -> None:
    both, environment = cluster

    def fit(job: TrainJob) -> tuple[int, str]:
        (shared / "job.json").write_text(job.model_dump_json())
        command = [sys.executable, "-c", FIT, HEAD, shared / "job.json"]
        into = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = both.run(1, command, environment, **into)
        return process.wait(timeout=250), process.communicate()[0]

    for host in (1, 2):  # as Debian's installer writes it: gloo would listen where no other host comes
        debian = f"sed 's/^.* h{host}$/127.0.1.1 h{host}/' /etc/hosts >/tmp/now; cat /tmp/now >/etc/hosts"
        assert both.run(host, ["sh", "-c", debian]).wait() == 0
    job = small_job(shared)
    code, said = fit(job)
    assert code == 0, said
    weights = Path(said.splitlines()[-1])
    assert absent(weights.parent, 2) == []
    report = json.loads((Path(job.out) / "preflight.json").read_text())
    assert (report["passed"], [rank["host"] for rank in report["ranks"]]) == (True, ["h1", "h2"])
    assert report["recommendation"]["options"]["kind"] == "none"  # the student is small
    code, said = fit(TrainJob.parse(job.dump() | {"out": "/tmp/of-each-host"}))
    assert code != 0
    assert "the network is not fit for training: storage, h1 " in said
    assert "/tmp/of-each-host is not that of h2" in said


@pytest.mark.e2e
def test_two_hosts_are_measured_and_one_that_is_cut_off_is_named(
    cluster: tuple[Hosts, dict[str, str]], shared: Path
) -> None:
    both, environment = cluster

    def examine(**other: str) -> tuple[int, str]:
        options = [
            "--address",
            HEAD,
            "--dir",
            shared / "runs",
            "--json",
            shared / "found",
            "--model-mb",
            "100",
        ]
        command = [
            sys.executable,
            "-c",
            "from raysr.cli import main; main()",
            "preflight",
            "--cluster",
            *options,
        ]
        into = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = both.run(1, command, environment | other, **into)
        return process.wait(timeout=250), process.communicate()[0]

    code, said = examine()
    assert code == 0, said
    report = json.loads((shared / "found").read_text())
    assert [(rank["host"], rank["interface"]) for rank in report["ranks"]] == [("h1", "eth0"), ("h2", "eth0")]
    assert 0 < 8e-6 * report["bandwidth"] < 115
    checks = {finding["check"]: finding["level"] for finding in report["findings"]}
    assert (checks["storage"], checks["token"], checks["transport"]) == ("ok", "ok", "ok")
    assert report["recommendation"]["options"]["kind"] == "powersgd"
    code, said = examine(RAY_AUTH_TOKEN=secrets.token_hex(32))
    assert (code, "refuses this host's token" in said) == (2, True), said
    both.cut(2)  # for good: no test comes after this one
    impatient = both.run(1, [sys.executable, "-c", IMPATIENT], environment, stdout=subprocess.PIPE, text=True)
    said, _ = impatient.communicate(timeout=250)
    assert f"on h2 ({address(2)})" in said
    assert "h1" not in said
