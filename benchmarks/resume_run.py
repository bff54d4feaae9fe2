"""A training on hosts whose workers, driver and hosts are killed while it goes on."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np

from benchmarks.resume_fit import NAME
from benchmarks.resume_kill import Fault, ray_workers, strike, wait_until
from benchmarks.resume_nodes import HEAD, Nodes
from benchmarks.resume_rows import told
from raysr.errors import RunError
from raysr.train.checkpoint import weights
from raysr.train.job import TrainJob

PATIENCE_S = 400.0
"""How long a training may take to go on."""


class Run:
    """A training by two workers, whose driver is a process that can be killed and started again.

    Args:
        nodes: where.
        job: what; its folder is emptied.
        fewest: workers that it goes on with.
        failures: of workers that it survives.
        rng: draws whom a fault strikes.
    """

    def __init__(
        self, nodes: Nodes, job: TrainJob, fewest: int, failures: int, rng: np.random.Generator
    ) -> None:
        self.nodes, self.job, self.out, self._rng = nodes, job, Path(job.out), rng
        self._options = ["--address", HEAD, "--workers", str(fewest), "2", "--failures", str(failures)]

    def __enter__(self) -> Self:
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True)
        (self.out / "job.json").write_text(self.job.model_dump_json())
        self._start()
        return self

    def __exit__(self, *error: object) -> None:
        self._kill()

    def disturb(self, kind: str, step: int) -> list[Fault]:
        """Let a fault of some kind strike when a step has been taken, and return what became of it."""
        self._wait(lambda: told(self.out) >= step, f"step {step}")
        if kind != "elastic":
            return [
                self._strike(
                    {"worker": self._kill_worker, "driver": self._restart, "node": self._replace}[kind]
                )
            ]
        return [self._strike(self._lose, count=1), self._strike(self.nodes.add)]

    def end(self) -> Path:
        """Wait for the end, and return the file of the finished student's weights."""
        if self._driver.wait(PATIENCE_S):
            raise RunError(f"the training in {self.out} failed: see {self._log}")
        return weights(max((self.out / NAME).glob("checkpoint-*")))

    def _strike(self, change: Callable[[], object], count: int = 2) -> Fault:
        return strike(change, lambda: ray_workers(os.getpid()), count, self.out, self._wait)

    def _kill_worker(self) -> None:
        os.kill(int(self._rng.choice(ray_workers(os.getpid()))), signal.SIGKILL)

    def _restart(self) -> None:
        self._kill()
        self._start()

    def _replace(self) -> None:
        self._lose()
        self.nodes.add()

    def _lose(self) -> None:
        self.nodes.kill(int(self._rng.choice(self.nodes.workers)))

    def _start(self) -> None:
        self._log = self.out / f"driver-{time.time_ns()}.log"
        job: list[str | Path] = ["ray", self.out / "job.json"]
        self._driver = self.nodes.start(
            [sys.executable, "-m", "benchmarks.resume_fit", *job, *self._options], self._log
        )

    def _kill(self) -> None:
        if self._driver.poll() is None:
            self._driver.kill()
        self._driver.wait()

    def _wait(self, reached: Callable[[], object], what: str) -> None:
        def here() -> bool:
            if reached():
                return True
            if self._driver.poll() is not None:
                raise RunError(f"the driver ended before {what}: see {self._log}")
            return False

        wait_until(here, what, PATIENCE_S)
