"""The network's pre-flight between hosts: links of 100 Mbit/s that are cut, and ranks that never come."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import hosts
from benchmarks.hosts import HostProcess, Hosts, address

MBIT = 100
LONG, SHORT = 60, 12  # seconds that ranks wait for each other where they should come, and where not


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def three(shared: Path) -> Iterator[Hosts]:
    if reason := hosts.missing():
        pytest.skip(reason)
    with Hosts(3, mbit=MBIT, shared=[shared]) as found:
        yield found


def start(
    found: Hosts, host: int, ranks: int, *options: object, master: str = address(1), timeout: float = LONG
) -> HostProcess:
    """Start the rank that is the host's number less one."""
    place = {"RANK": str(host - 1), "WORLD_SIZE": str(ranks), "MASTER_ADDR": master, "MASTER_PORT": "29400"}
    return found.run(
        host,
        [sys.executable, "-m", "raysr.train.network", f"--timeout={timeout}", *map(str, options)],
        {**place, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: HostProcess) -> tuple[int, str, str]:
    out, error = process.communicate(timeout=200)
    return process.returncode, out, error


def report_of(found: Hosts, shared: Path, folder: object, **options: Any) -> tuple[int, str, dict[str, Any]]:
    """Return how the pre-flight of two hosts ends, what it says, and its report."""
    file = shared / "report.json"
    one = start(found, 1, 2, "--dir", folder, "--model-mb", 100, "--json", file, **options)
    other = start(found, 2, 2, "--dir", folder, "--model-mb", 100, **options)
    code, said, error = ended(one)
    assert (ended(other)[0], error) == (code, "")
    return code, said, json.loads(file.read_text())


def test_a_link_has_the_speed_that_it_was_given_whatever_its_driver_claims(
    three: Hosts, shared: Path
) -> None:
    code, said, report = report_of(three, shared, shared / "runs")
    assert (code, report["passed"]) == (0, True)
    # a link carries 95, and a machine that is busy elsewhere less
    assert 0.5 * MBIT < 8e-6 * report["bandwidth"] < 1.05 * MBIT
    assert 0.5 * MBIT < 8e-6 * report["pairs"][0]["bandwidth"] < 1.05 * MBIT
    assert [rank["interface"] for rank in report["ranks"]] == ["eth0", "eth0"]
    assert [rank["host"] for rank in report["ranks"]] == ["h1", "h2"]
    assert f"{shared}/runs can be written, and is the same for all" in said
    assert "of the 10 Gbit/s that it claims" in said
    assert "no host has a card for it: sockets it is" in said
    assert report["recommendation"]["options"]["kind"] == "powersgd"


def test_folders_of_each_host_are_a_failure_and_names_that_stand_for_loopback_are_got_round(
    three: Hosts, shared: Path
) -> None:
    for host in (1, 2):  # as Debian's installer writes it
        debian = f"cp /etc/hosts /tmp/was; sed 's/^.* h{host}$/127.0.1.1 h{host}/' /tmp/was >/etc/hosts"
        assert three.run(host, ["sh", "-c", debian]).wait() == 0
    code, said, report = report_of(three, shared, "/tmp/runs", master="h1")
    for host in (1, 2):
        assert three.run(host, ["sh", "-c", "cat /tmp/was >/etc/hosts"]).wait() == 0
    assert (code, report["passed"]) == (1, False)
    assert f"failure  storage, h1 ({address(1)}): /tmp/runs is not that of h2 ({address(2)})" in said
    for host in (1, 2):
        assert f"ok       address, h{host} ({address(host)}): its name stands for 127.0.1.1" in said
    assert "trainings let it listen on eth0" in said
    assert report["pairs"][0]["bandwidth"] > 1e6


def test_a_rank_that_never_starts_or_whose_cable_is_cut_is_named(three: Hosts) -> None:
    three.cut(2)
    first, second = (start(three, host, 3, timeout=SHORT) for host in (1, 2))
    third = start(three, 3, 3, timeout=SHORT)
    for process in (first, third):
        code, _, error = ended(process)
        assert code == 2
        assert error.startswith(f"error: rank 1 did not come within {SHORT} s; here are rank 0, rank 2. ")
    code, _, error = ended(second)
    three.heal(2)
    assert code == 2
    assert error.startswith(
        f"error: rank 1 on h2 found no rank 0 at {address(1)}, port 29400, within {SHORT} s: "
    )


def test_hosts_that_reach_the_first_but_not_each_other_are_named(three: Hosts) -> None:
    three.run(2, ["ip", "route", "add", "unreachable", f"{address(3)}/32"]).wait()
    ranks = [start(three, host, 3) for host in (1, 2, 3)]
    ends = [ended(process) for process in ranks]
    three.run(2, ["ip", "route", "delete", "unreachable", f"{address(3)}/32"]).wait()
    for code, _, error in ends:
        assert code == 2
        assert f"error: rank 1 on h2 ({address(2)}) does not reach rank 2 on h3 ({address(3)})" in error


def test_a_host_that_is_lost_while_links_are_measured_is_named(three: Hosts) -> None:
    ranks = [start(three, host, 2, timeout=SHORT) for host in (1, 2)]
    before = three.sent(2)
    while three.sent(2) - before < 2_000_000:
        assert [process.poll() for process in ranks] == [None, None]
        time.sleep(0.01)
    three.cut(2)
    ends = [ended(process) for process in ranks]
    three.heal(2)
    assert [code for code, _, _ in ends] == [2, 2]
    assert f"error: rank 0 on h1 ({address(1)}) does not reach rank 1 on h2 ({address(2)}) (" in ends[0][2]
