"""The two ways in which the same training goes through this machine, and what is seen of it from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.code import ROOT
from benchmarks.comm_cluster import follow, tail
from raysr.errors import RunError
from raysr.train.job import TrainJob

RANKS = 2
RAY, TORCHRUN = "ray", "torchrun"
_FIT = ("-m", "benchmarks.train_fit")
_RUN = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}")
WAYS: Mapping[str, Sequence[str]] = {TORCHRUN: [*_RUN, *_FIT, TORCHRUN], RAY: [*_FIT, RAY]}
START_S, END_S = 300.0, 1800.0  # how long is waited for the first steps, and for all of them
PAUSE_S = 0.05  # between looks at whether the first steps are done
OF_OUR_OWN = ("RAY_ADDRESS", "OMP_NUM_THREADS")  # each way sets its number of threads itself


@dataclass(frozen=True)
class Seen:
    """What a training showed.

    Attributes:
        metrics: rows of its ``metrics.jsonl``.
        startup_s: from the command to the first step.
        total_s: from the command to its end.
    """

    metrics: list[dict[str, Any]]
    startup_s: float
    total_s: float


def carry_out(way: str, job: TrainJob, folder: Path) -> Seen:
    """Train in a way, with nothing of the other one running.

    Raises:
        RunError: it failed, or took too long; with the end of its output.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(job.model_dump_json())
    log, metrics = folder / "output.log", Path(job.out) / "metrics.jsonl"
    environment = {name: value for name, value in os.environ.items() if name not in OF_OUR_OWN}
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *WAYS[way], str(folder / "job.json")],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        first = next(follow(metrics, lambda: process.poll() is not None, START_S, PAUSE_S))
        startup = time.monotonic() - started - first["step"] * first["seconds_per_step"]
        status = process.wait(END_S)
    except (RunError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{way}: {error}\n{tail(log)}") from error
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status:
        raise RunError(f"{way} ended with {status}\n{tail(log)}")
    total = time.monotonic() - started
    return Seen([json.loads(line) for line in metrics.read_text().splitlines()], startup, total)
