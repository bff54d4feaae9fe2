"""Runs as jobs of a Ray cluster: submitted once, followed, stopped, and submitted again.

The folder of a run is its identity. A job's id says which run it is of and how often that was submitted before, so two
who submit the same run at once ask for the same id, of which Ray takes one.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
STOP_S, OUTAGE_S, QUIET_S, LOOK_S = 30.0, 300.0, 60.0, 0.5
ATTEMPTS = 20
ADDRESS = "RAY_API_SERVER_ADDRESS"
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
    """

    id: str
    run: str
    command: tuple[str, ...]
    storage: str | None
    status: str
    began: float | None
    ended: float | None
    code: int | None

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

    Every method raises RunError where the cluster does not answer, does not know this host's token, or refuses.

    Args:
        address: of the dashboard, ``http://head:8265``; None takes ``RAY_API_SERVER_ADDRESS`` or ``RAY_ADDRESS``, or
            the cluster of this machine.
    """

    def __init__(self, address: str | None = None) -> None:
        from ray.job_submission import JobSubmissionClient

        with _told_plainly(), _asked_at(address):
            self._client: Any = JobSubmissionClient(address)

    def submit(
        self, run: str, command: Sequence[str], working_dir: Path, storage: str | None = None
    ) -> tuple[RunJob, bool]:
        """Have a run worked on by a job; return it, and whether it is a new one: a run has one at a time.

        Args:
            run: its folder on the cluster, absolute.
            command: arguments of ``raysr``.
            working_dir: is copied to the cluster, where the command runs in it, by the ``python`` of the node's PATH.
            storage: what relative folders lie in.
        """
        words = ["python", "-m", MODULE, *command]
        variables = {"PYTHONUNBUFFERED": "1", "RAY_JOB_STOP_WAIT_TIME_S": f"{STOP_S:.0f}"}
        environment = {
            "working_dir": str(working_dir),
            "excludes": list(EXCLUDED),
            "env_vars": variables | ({STORAGE: storage} if storage else {}),
        }
        metadata = {RUN: run, COMMAND: json.dumps(list(command))}
        for _ in range(ATTEMPTS):
            before = self.jobs(run)
            if live := [job for job in before if job.live]:
                return live[-1], False
            number = 1 + max((job.number for job in before), default=0)
            name = f"{stem(run)}-{number:03}"
            with _told_plainly():
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
                        raise
            time.sleep(LOOK_S)  # somebody else was quicker, whose job will be seen
        raise RunError(f"{name} is the id of a job that is none of {run}; stop and delete that one")

    def jobs(self, run: str | None = None) -> list[RunJob]:
        """Return the jobs of a run, or of all, in the order that they were submitted in."""
        with _told_plainly():
            details = self._client.list_jobs()
        found = [_job(each) for each in details if RUN in (each.metadata or {})]
        chosen = [job for job in found if run in (None, job.run)]
        return sorted(chosen, key=lambda job: (job.began or float("inf"), job.number))

    def get(self, name: str) -> RunJob:
        """Return a job by its id, or the last one of a run by its folder; RunError names those that there are."""
        jobs = self.jobs()
        if found := [job for job in jobs if name in (job.id, job.run)]:
            return found[-1]
        told = ", ".join(job.id for job in jobs) or "none"
        raise RunError(f"no job or run here is called {name}; jobs: {told}")

    def resume(self, name: str, working_dir: Path) -> tuple[RunJob, bool]:
        """Submit the run of a job again, with its command; see :meth:`submit`."""
        job = self.get(name)
        return self.submit(job.run, job.command, working_dir, job.storage)

    def stop(self, name: str, patience: float = 2 * STOP_S) -> RunJob:
        """Ask a job to stop, as Ctrl-C does, and return it when it has; RunError where it has not in time.

        Ray kills what has not ended after ``STOP_S``.
        """
        job, asked = self.get(name), False
        deadline = time.monotonic() + patience
        while job.live:
            if time.monotonic() > deadline:
                raise RunError(f"job {job.id} has not stopped within {patience:g} s")
            if not asked:  # one that is only just beginning does not hear it yet
                with _told_plainly():
                    asked = self._client.stop_job(job.id)
            time.sleep(LOOK_S)
            job = self.get(job.id)
        return job

    def follow(self, name: str, tell: Callable[[str], object]) -> RunJob:
        """Hand on what a job prints until it ends, from its beginning; return it then.

        A connection that breaks is made again; RunError where that has not succeeded for ``OUTAGE_S``.
        """
        job, told, heard = self.get(name), 0, time.monotonic()

        async def tail() -> None:
            nonlocal told, heard
            texts, seen = self._client.tail_job_logs(job.id), 0
            with contextlib.suppress(StopAsyncIteration, TimeoutError):
                while text := await asyncio.wait_for(anext(texts), QUIET_S):
                    heard = time.monotonic()
                    seen += len(text)
                    if seen > told:  # a new connection begins anew
                        tell(text[-(seen - told) :])
                        told = seen

        while True:
            try:
                with _told_plainly():
                    asyncio.run(tail())
                job = self.get(job.id)
                if not job.live:
                    return job
                heard = time.monotonic()
            except RunError as error:
                if time.monotonic() > heard + OUTAGE_S:
                    raise RunError(f"job {job.id} may go on, but cannot be followed: {error}") from None
            time.sleep(LOOK_S)


def stem(run: str) -> str:
    """Return what the ids of a run's jobs begin with: its folder's name, and a little of where that lies."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(run).name) or "run"
    return f"{name}-{hashlib.sha256(run.encode()).hexdigest()[:8]}"


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
    )


@contextlib.contextmanager
def _told_plainly() -> Iterator[None]:
    """Make what a cluster answers, or that it does not, an error in one line."""
    from aiohttp import ClientError
    from ray.exceptions import RayError

    try:
        yield
    except (RuntimeError, OSError, ValueError, ClientError, RayError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise RunError(f"the cluster's jobs: {lines[-1] if lines else type(error).__name__}") from None


@contextlib.contextmanager
def _asked_at(address: str | None) -> Iterator[None]:
    """Have an address hold that was given: Ray prefers its variables."""
    before = os.environ.get(ADDRESS)
    if address is not None:
        os.environ[ADDRESS] = address
    try:
        yield
    finally:
        if address is not None:
            os.environ.pop(ADDRESS) if before is None else os.environ.update({ADDRESS: before})
