"""`raysr …` as a process of its own, and what a process leaves behind."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 280
# a shell starts what it runs in the background deaf to Ctrl-C, and the tests may be that
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from raysr.cli import main
main()
"""


def start(*arguments: str | Path, address: str | None = None) -> "subprocess.Popen[str]":
    """Start a command that joins the Ray at ``address``, or has one of its own."""
    environment = {k: v for k, v in os.environ.items() if k not in {"RAY_ADDRESS", "PYTHONPATH"}}
    environment |= {"RAY_ADDRESS": address} if address else {}
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_until(reached: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    """Wait for something that a running process is to bring about."""
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def descendants(pid: int) -> set[int]:
    """Return the living processes below ``pid``."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(path.parent.name)] = int(fields[1])
    found: set[int] = set()
    fresh = {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


def outliving(pids: set[int], seconds: float) -> set[int]:
    """Return the processes that are still there after some seconds, or nothing as soon as none is."""
    deadline = time.monotonic() + seconds
    while any(map(_is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return set(filter(_is_alive, pids))


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
