"""The servers of the benchmarks of serving, each on one core, and what sessions that play to them see."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from benchmarks.processes import cpu_seconds, resident_mb, tree
from raysr.ports import free_port

BARE = "bare"
FRONTS = ("asgi", "alone", "serve", "haproxy")
_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, CLIENT_CORE = str(_CORES[0]), str(_CORES[-1])
MOST_SESSIONS = 512
PATIENCE_S = 180.0


@dataclass(frozen=True)
class Played:
    """What sessions saw, and what the server took for them.

    Attributes:
        heard: see :class:`benchmarks.serve_client.Heard`.
        busy: CPU seconds of all the server's processes.
        rss_before_mb: resident memory of the process with the model, before.
        rss_mb: the same while they play, the median.
    """

    heard: list[dict[str, Any]]
    busy: float
    rss_before_mb: float
    rss_mb: float


class Server(Protocol):
    """Something that sessions can play to."""

    def played(self, sessions: int, seconds: float, first: int = 0, pace: float = 1) -> Played:
        """Play in so many sessions, the first one the recording of a number; with a pace of 0, as fast as it goes."""
        ...


@dataclass(frozen=True)
class Front:
    """A server with sockets that runs."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def replica(self) -> int:
        """The process with the model in it."""
        replicas = [pid for pid in tree(self.process.pid) if "ServeReplica:raysr" in _command(pid)]
        return replicas[0] if replicas else self.process.pid

    def played(self, sessions: int, seconds: float, first: int = 0, pace: float = 1) -> Played:
        """Play from the clients' core."""
        before, busy = resident_mb(self.replica), cpu_seconds(self.process.pid)
        url = self.url.replace("http", "ws")
        with resident(self.replica) as seen:
            heard = _told(CLIENT_CORE, ["benchmarks.serve_client", url], (sessions, seconds, first, pace))
        busy = cpu_seconds(self.process.pid) - busy
        return Played(heard, busy, before, statistics.median(seen))


@dataclass(frozen=True)
class Bare:
    """The engine, without a server: a process anew each time, whose start does not count."""

    pool: Path

    def played(self, sessions: int, seconds: float, first: int = 0, pace: float = 1) -> Played:
        """Play within the process, on the server's core."""
        found = _told(
            SERVER_CORE, ["benchmarks.serve_bare", str(self.pool)], (sessions, seconds, first, pace)
        )
        return Played(**found)


@contextlib.contextmanager
def resident(pid: int, every: float = 1.0) -> Iterator[list[float]]:
    """Fill a list with a process's resident memory in MB, for as long as the block runs; one at least."""
    seen, over = [resident_mb(pid)], threading.Event()

    def watch() -> None:
        while not over.wait(every):
            seen.append(resident_mb(pid))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def server(name: str, pool: Path) -> Iterator[Server]:
    """Have a server for the block, or the engine alone."""
    if name == BARE:
        yield Bare(pool)
    else:
        with front(name, pool) as running:
            yield running


@contextlib.contextmanager
def front(name: str, pool: Path, *overrides: str) -> Iterator[Front]:
    """Run a server for the block, with overrides of its configuration."""
    port = free_port(0)
    chosen = [f"limits.sessions={MOST_SESSIONS}", *overrides]
    own = ["benchmarks.serve_server", str(pool), "--port", str(port), *chosen]
    rays = ["raysr.cli", "serve", "--pool", str(pool), "--port", str(port), *chosen]
    modules = {"asgi": own, "alone": [own[0], "--alone", *own[1:]], "serve": rays, "haproxy": rays}
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": str(int(name == "haproxy")),
    }
    command = ["taskset", "-c", SERVER_CORE, sys.executable, "-m", *modules[name]]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, process)
        yield Front(url, process)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def _told(core: str, module: Sequence[str], played: tuple[int, float, int, float]) -> Any:
    """Return what a process on a core found out: sessions, seconds, the first recording and the pace are ``played``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        options = zip(("--sessions", "--seconds", "--first", "--pace"), map(str, played), strict=True)
        command = [*module, *(word for option in options for word in option), "--json", str(path)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(["taskset", "-c", core, sys.executable, "-m", *command], check=True, env=environment)
        return json.loads(path.read_text())


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit("error: the server did not start")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/healthz", timeout=5):
            return
        time.sleep(0.3)
    raise SystemExit(f"error: the server did not start within {PATIENCE_S:g} s")


@cache
def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
