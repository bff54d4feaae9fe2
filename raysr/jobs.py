"""Runs as jobs of a Ray cluster: submitted once, followed, stopped, and submitted again.

The folder of a run is its identity. A job's id says which run it is of and how often that was submitted before, so two
who submit the same run at once ask for the same id, of which Ray takes one.
"""

import asyncio
import contextlib
import hashlib
import json
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysr.errors import RunError
from raysr.ipl.folder import STORAGE

RUN, COMMAND = "raysr_run", "raysr_command"
EXCLUDED = (".git", ".venv", "/runs", "__pycache__")
"""Of a working folder, what no job needs."""
LIVE = ("PENDING", "RUNNING")
MODULE = "raysr.cli"
STOP_S, OUTAGE_S, LOOK_S = 60.0, 300.0, 0.5
_NUMBER = re.compile(r"-(\d{3,})$")


@dataclass(frozen=True, slots=True)
class RunJob:
    """A job of a run.

    Attributes:
        id: its submission id.
        run: the run's folder on the cluster.
        command: arguments of ``raysr``.
        storage: below which relative folders lie, as the job knows it.
        status: Ray's word for its state.
        began, ended: seconds since the epoch, as far as they are known.
        code: exit code of the command, once it has one.
        message: what Ray says of the state.
    """

    id: str
    run: str
    command: tuple[str, ...]
    storage: str | None
    status: str
    began: float | None
    ended: float | None
    code: int | None
    message: str

    @property
    def live(self) -> bool:
        """Whether it waits or runs."""
        return self.status in LIVE

    @property
    def number(self) -> int:
        """The how-manieth of its run it is."""
        found = _NUMBER.search(self.id)
        return int(found[1]) if found else 0


class RunJobs:
    """The jobs of runs on a cluster; jobs of other kinds are left alone.

    Args:
        address: of the dashboard, ``http://head:8265``; None takes the environment's ``RAY_ADDRESS``, or the cluster of
            this machine.

    Raises:
        RunError: nobody answers there, or one who does not know this host's token.
    """

    def __init__(self, address: str | None = None) -> None:
        from ray.job_submission import JobSubmissionClient

        try:
            self._client: Any = JobSubmissionClient(address)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = address or "the cluster of RAY_ADDRESS or this machine"
            raise RunError(f"{where} takes no jobs: {_first_line(error)}") from None

    def submit(
        self, run: str, command: Sequence[str], working_dir: Path, storage: str | None = None
    ) -> tuple[RunJob, bool]:
        """Have a run worked on by a job; return it, and whether it is a new one: a run has one at a time.

        Args:
            run: its folder on the cluster, absolute.
            command: arguments of ``raysr``.
            working_dir: is copied to the cluster, where the command runs in it.
            storage: what relative folders lie in.

        Raises:
            RunError: Ray refuses it.
        """
        words = ["python", "-m", MODULE, *command]
        variables = {"PYTHONUNBUFFERED": "1"} | ({STORAGE: storage} if storage else {})
        environment = {"working_dir": str(working_dir), "excludes": list(EXCLUDED), "env_vars": variables}
        metadata = {RUN: run, COMMAND: json.dumps(list(command))}
        while True:
            before = self.jobs(run)
            if live := [job for job in before if job.live]:
                return live[-1], False
            number = 1 + max((job.number for job in before), default=0)
            name = f"{stem(run)}-{number:03}"
            try:
                self._client.submit_job(
                    entrypoint=shlex.join(words),
                    submission_id=name,
                    runtime_env=environment,
                    metadata=metadata,
                )
                return self.get(name), True
            except RuntimeError as error:
                if "already exists" not in str(error):
                    raise RunError(f"the job was refused: {_first_line(error)}") from None
            time.sleep(LOOK_S)  # somebody else was quicker, whose job will be seen

    def jobs(self, run: str | None = None) -> list[RunJob]:
        """Return the jobs of a run, or of all, in the order that they were submitted in."""
        found = [_job(details) for details in self._client.list_jobs() if RUN in (details.metadata or {})]
        chosen = [job for job in found if run in (None, job.run)]
        return sorted(chosen, key=lambda job: (job.began or float("inf"), job.number))

    def get(self, name: str) -> RunJob:
        """Return a job by its id, or the last one of a run by its folder.

        Raises:
            RunError: there is none; names those that there are.
        """
        jobs = self.jobs()
        if found := [job for job in jobs if name in (job.id, job.run)]:
            return found[-1]
        told = ", ".join(job.id for job in jobs) or "none"
        raise RunError(f"no job or run here is called {name}; jobs: {told}")

    def resume(self, name: str, working_dir: Path) -> tuple[RunJob, bool]:
        """Submit the run of a job again, with its command; see :meth:`submit`."""
        job = self.get(name)
        return self.submit(job.run, job.command, working_dir, job.storage)

    def stop(self, name: str, patience: float = STOP_S) -> RunJob:
        """Ask a job to stop and return it when it has.

        Raises:
            RunError: it has not after ``patience`` seconds.
        """
        job = self.get(name)
        if job.live:
            self._client.stop_job(job.id)
        deadline = time.monotonic() + patience
        while (job := self.get(job.id)).live:
            if time.monotonic() > deadline:
                raise RunError(f"job {job.id} has not stopped within {patience:g} s")
            time.sleep(LOOK_S)
        return job

    def follow(self, name: str, tell: Callable[[str], object]) -> RunJob:
        """Hand on what a job prints until it ends, from its beginning; return it then.

        Raises:
            RunError: for ``OUTAGE_S`` nobody has answered.
        """
        job, told = self.get(name), 0

        async def tail() -> None:
            nonlocal told
            seen = 0
            async for text in self._client.tail_job_logs(job.id):
                seen += len(text)
                if seen > told:  # a connection that broke begins anew
                    tell(text[-(seen - told) :])
                    told = seen

        heard = time.monotonic()
        while job.live:
            with contextlib.suppress(
                RuntimeError, OSError
            ):  # the head is started again, or the network is cut
                asyncio.run(tail())
                job, heard = self.get(job.id), time.monotonic()
            if time.monotonic() > heard + OUTAGE_S:
                raise RunError(f"nobody has told of job {job.id} for {OUTAGE_S:g} s; it may go on")
            time.sleep(LOOK_S)
        return job


def stem(run: str) -> str:
    """Return what the ids of a run's jobs begin with: its folder's name, and a little of where that lies."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(run).name) or "run"
    return f"{name}-{hashlib.sha256(run.encode()).hexdigest()[:4]}"


def _job(details: Any) -> RunJob:
    metadata: Mapping[str, str] = details.metadata
    variables = (details.runtime_env or {}).get("env_vars", {})
    return RunJob(
        id=details.submission_id,
        run=metadata[RUN],
        command=tuple(json.loads(metadata[COMMAND])),
        storage=variables.get(STORAGE),
        status=str(getattr(details.status, "value", details.status)),
        began=details.start_time / 1000 if details.start_time else None,
        ended=details.end_time / 1000 if details.end_time else None,
        code=details.driver_exit_code,
        message=details.message or "",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
