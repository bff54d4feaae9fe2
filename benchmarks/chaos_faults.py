"""The faults of `benchmarks.chaos`: what happens, at which stage of a run, and how it is made good."""

import os
import random
import shutil
import signal
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from benchmarks.chaos_cluster import Cluster
from raysr.pool import WEIGHTS, Pool

FIND_S = 20.0
STAGES = ("labelling", "training")


class Fault:
    """Something that goes wrong once.

    Attributes:
        stages: of a run, in one of which it happens.
        of_endpoint: whether it is the endpoint that has to recover.
        lasts: seconds until :meth:`mend` is called; 0 where nobody has to do anything.

    Args:
        cluster: to which it happens.
        work: the folder that all its hosts see.
        draws: for what is left to chance.
    """

    stages: ClassVar[tuple[str, ...]] = STAGES
    of_endpoint: ClassVar[bool] = False
    lasts = 0.0

    def __init__(self, cluster: Cluster, work: Path, draws: random.Random) -> None:
        self.cluster, self.work, self.draws = cluster, work, draws

    @abstractmethod
    def happen(self) -> str:
        """Let it happen; return what it was, in words."""

    def mend(self) -> None:
        """Make it good; it may be called twice."""


class Killed(Fault):
    """``kill -9`` of one of the processes with a name."""

    named: ClassVar[str]

    def happen(self) -> str:
        until = time.monotonic() + FIND_S
        while not (found := self.cluster.processes(self.named)):
            if time.monotonic() > until:
                return f"no {self.named} was there to be killed"
            time.sleep(0.05)
        victim = self.draws.choice(found)
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        return f"killed one of {len(found)} {self.named}"


class Driver(Killed):
    named = "raysr.cli\0ipl"


class TrainController(Killed):
    stages = ("training",)
    named = "ray::TrainController"


class ServeController(Killed):
    named = "ray::ServeController"
    of_endpoint = True


class Teacher(Killed):
    stages = ("labelling",)
    named = "MapWorker"


class Trainer(Killed):
    stages = ("training",)
    named = "ray::RayTrainWorker"


class Replica(Killed):
    named = "ray::ServeReplica:raysr"
    of_endpoint = True


def controller(cluster: Cluster, work: Path, draws: random.Random) -> Fault:
    """Return one of the controllers' ends."""
    return draws.choice([TrainController, ServeController])(cluster, work, draws)


class Node(Fault):
    def happen(self) -> str:
        host = self.draws.choice(list(self.cluster.workers))
        self.cluster.switch_off(host)
        return f"switched off host {host}"


class Cut(Fault):
    def happen(self) -> str:
        self.host = self.draws.choice(list(self.cluster.workers))
        self.lasts = self.draws.uniform(2, 40)
        self.cluster.hosts.cut(self.host)
        return f"pulled the cable of host {self.host} for {self.lasts:.0f} s"

    def mend(self) -> None:
        self.cluster.hosts.heal(self.host)


class Slow(Fault):
    lasts = 30.0

    def happen(self) -> str:
        self.host = self.draws.choice(list(self.cluster.workers))
        self.cluster.hosts.rate(self.host, 2)
        return f"2 Mbit/s for host {self.host}"

    def mend(self) -> None:
        self.cluster.hosts.rate(self.host, None)


class Disk(Fault):
    lasts = 30.0

    def happen(self) -> str:
        self.ballast = self.work / "runs" / "ballast"
        with self.ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        with self.ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"0")
        return "filled the disk"

    def mend(self) -> None:
        self.ballast.unlink(missing_ok=True)


class Clock(Fault):
    lasts = 20.0

    def happen(self) -> str:
        seconds = self.draws.choice([-1, 1]) * self.draws.choice([10, 600, 86_400])
        self.cluster.clock(seconds)
        return f"clocks jumped by {seconds} s"

    def mend(self) -> None:
        self.cluster.clock(0)


class Entry(Fault):
    lasts = 20.0
    of_endpoint = True

    def happen(self) -> str:
        pool = Pool(self.work / "pool")
        (good,) = pool.entries()
        self.path = pool.root / "cycle-999"
        unfinished = pool.root / ".cycle-999.partial"
        shutil.copytree(good.path, unfinished)
        weights = bytearray((unfinished / WEIGHTS).read_bytes())
        weights[self.draws.randrange(len(weights) // 2, len(weights))] ^= 1 << self.draws.randrange(8)
        (unfinished / WEIGHTS).write_bytes(weights)
        unfinished.rename(self.path)
        return "published a damaged entry"

    def mend(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


FAULTS: Mapping[str, Callable[[Cluster, Path, random.Random], Fault]] = {
    "driver": Driver,
    "controller": controller,
    "teacher": Teacher,
    "trainer": Trainer,
    "replica": Replica,
    "node": Node,
    "cut": Cut,
    "slow": Slow,
    "disk": Disk,
    "clock": Clock,
    "entry": Entry,
}
