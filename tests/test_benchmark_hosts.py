"""Several hosts on one machine: apart in what hosts have of their own, with links as slow as asked, and gone after."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import descendants, outliving

from benchmarks import hosts
from benchmarks.code import ROOT
from benchmarks.hosts import Hosts, address
from raysr.errors import RunError

RECEIVE = """
import socket
with socket.create_server(("", 5000)) as server:
    print("ready", flush=True)
    connection, _ = server.accept()
    while connection.recv(1 << 20): pass
"""
SEND = """
import socket, sys, time
with socket.create_connection((sys.argv[1], 5000)) as connection:
    started = time.perf_counter()
    connection.sendall(bytes(int(sys.argv[2])))
    connection.shutdown(socket.SHUT_WR)
    connection.recv(1)
    print(time.perf_counter() - started)
"""
CRASH = """
import sys, time
from benchmarks.hosts import Hosts
with Hosts(2) as both:
    both.run(1, ["sleep", "600"])
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hosts, Path]]:
    if reason := hosts.missing():
        pytest.skip(reason)
    shared = tmp_path_factory.mktemp("shared")
    with Hosts(2, mbit=100, shared=[shared]) as both:
        yield both, shared


def said(both: Hosts, host: int, *command: str) -> str:
    process = both.run(host, command, stdout=subprocess.PIPE, text=True)
    return str(process.communicate(timeout=60)[0])


def transfer(both: Hosts, size: int) -> float:
    """Return the seconds in which host 1 sends so many bytes to host 2."""
    server = both.run(2, [sys.executable, "-c", RECEIVE], stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "ready\n"
    seconds = float(said(both, 1, sys.executable, "-c", SEND, address(2), str(size)))
    assert server.wait(timeout=60) == 0
    server.stdout.close()
    return seconds


def least_seconds(size: int, mbit: float) -> float:
    """Return the seconds below which a link would be too fast: but for a burst, and what headers and clocks leave."""
    return 0.9 * (size - (128 << 10)) * 8 / (mbit * 1e6)


def test_hosts_have_names_processes_and_folders_of_their_own(two: tuple[Hosts, Path]) -> None:
    both, shared = two
    assert said(both, 1, "hostname") == "h1\n"
    assert said(both, 2, "getent", "hosts", "h1").split() == [address(1), "h1"]
    assert socket.gethostname() != "h1"
    said(both, 1, "sh", "-c", f"touch /tmp/own /dev/shm/own {shared}/common")
    assert "own" not in said(both, 2, "ls", "/tmp", "/dev/shm")
    assert said(both, 2, "ls", str(shared)) == "common\n"
    assert (shared / "common").exists()
    assert said(both, 2, "pwd") == f"{ROOT}\n"
    assert said(both, 2, "sh", "-c", "echo $$").strip() != str(os.getpid())
    assert set(said(both, 2, "ls", "/sys/class/net").split()) == {"eth0", "lo"}


def test_a_link_is_as_slow_as_asked_and_its_bytes_are_counted(two: tuple[Hosts, Path]) -> None:
    both, _ = two
    size = 5_000_000
    before = both.sent(1)
    assert transfer(both, size) > least_seconds(size, mbit=100)
    assert size < both.sent(1) - before < 1.1 * size
    for host in (1, 2):
        both.rate(host, None)
    unlimited = transfer(both, size)
    both.rate(1, 20)
    limited = transfer(both, size)
    assert limited > least_seconds(size, mbit=20)
    assert unlimited < limited
    for host in (1, 2):
        both.rate(host, 100)


def test_a_cut_cable_stops_what_is_on_the_way_and_healed_lets_it_go_on(two: tuple[Hosts, Path]) -> None:
    both, _ = two
    server = both.run(2, [sys.executable, "-c", RECEIVE], stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "ready\n"
    command = [sys.executable, "-c", SEND, address(2), "5000000"]
    before = both.sent(1)
    client = both.run(1, command, stdout=subprocess.PIPE, text=True)
    while both.sent(1) - before < 1_000_000:
        assert client.poll() is None
        time.sleep(0.01)
    both.cut(2)
    with pytest.raises(subprocess.TimeoutExpired):
        client.wait(timeout=1.5)
    both.heal(2)
    assert client.wait(timeout=120) == 0
    assert server.wait(timeout=60) == 0
    client.stdout.close()
    server.stdout.close()


def test_a_signal_reaches_the_process_itself(two: tuple[Hosts, Path]) -> None:
    both, _ = two
    deaf = "import signal, time; signal.signal(15, lambda *_: exit(7)); print('ready', flush=True); time.sleep(600)"
    process = both.run(1, [sys.executable, "-c", deaf], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(timeout=30) == 7
    killed = both.run(1, ["sh", "-c", "echo ready; exec sleep 600"], stdout=subprocess.PIPE, text=True)
    assert killed.stdout.readline() == "ready\n"
    killed.kill()
    assert killed.wait(timeout=30) == -signal.SIGKILL
    process.stdout.close()
    killed.stdout.close()


def test_a_host_that_is_switched_off_takes_its_processes_and_another_can_come(
    two: tuple[Hosts, Path],
) -> None:
    both, _ = two
    number = both.add(mbit=100)
    commands = ("echo ready; sleep 600 & sleep 600", "echo ready; exec sleep 600")
    processes = [both.run(number, ["sh", "-c", c], stdout=subprocess.PIPE, text=True) for c in commands]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    both.kill(number)
    for process in processes:
        assert process.wait(timeout=30) == -signal.SIGKILL
        process.stdout.close()
    with pytest.raises(KeyError):
        both.run(number, ["true"])
    assert both.add() == number + 1


def test_nothing_is_left_behind_by_kill_9_either() -> None:
    if reason := hosts.missing():
        pytest.skip(reason)
    process = subprocess.Popen([sys.executable, "-c", CRASH], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout.readline() == "ready\n"
    started = descendants(process.pid)
    assert len(started) >= 5
    process.kill()
    process.wait()
    process.stdout.close()
    assert not outliving(started, seconds=20)


def test_what_a_machine_lacks_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(RunError, match="need ip, tc, unshare, nsenter, on Debian in iproute2 and util-linux"),
        Hosts(2),
    ):
        pass
