"""`raysr jobs`: runs as jobs of a Ray cluster."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raysr.cli.common import ConfigOption, Overrides, print_table

if TYPE_CHECKING:
    from raysr.jobs import RunJob, RunJobs

jobs = typer.Typer(
    no_args_is_help=True, help="Runs as jobs of a Ray cluster: submitted once, followed, stopped, resumed."
)

Address = Annotated[
    str | None,
    typer.Option(
        help="Of the cluster's dashboard, http://head:8265; otherwise RAY_API_SERVER_ADDRESS, or the cluster here."
    ),
]
WorkingDir = Annotated[
    Path,
    typer.Option(
        exists=True, file_okay=False, help="Copied to the cluster, where the run reads its configuration."
    ),
]
Follow = Annotated[bool, typer.Option("--follow", help="Print what the job prints, until it ends.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="Its id, or the folder of its run.")]


def register(app: typer.Typer) -> None:
    """Add the group to the application."""
    app.add_typer(jobs, name="jobs")


@jobs.command()
def submit(
    config: ConfigOption,
    address: Address = None,
    working_dir: WorkingDir = Path("."),
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="RAYSR_STORAGE",
            help="Folder that all nodes see, or an object store; a relative `run.dir` lies in it.",
        ),
    ] = None,
    next_cycle: Annotated[
        bool,
        typer.Option("--next-cycle", help="One cycle alone: that which was interrupted, or else the next."),
    ] = False,
    follow: Follow = False,
    overrides: Overrides = None,
) -> None:
    """Run `raysr ipl` as a job; a run that has one already keeps that, so that asking twice is safe.

    A run that was stopped goes on where it was. Example:
    `raysr jobs submit -c jobs/conf/demo.yaml --address http://head:8265 --storage /shared`
    """
    from raysr.corpus.places import is_uri
    from raysr.errors import ConfigError, RunError
    from raysr.ipl.config import read_config
    from raysr.jobs import EXCLUDED, RunJobs

    settings = read_config(config, overrides or [])
    if settings.run.dir.startswith("~"):
        raise RunError(
            f"run.dir {settings.run.dir} would be another folder on the cluster: give an absolute one"
        )
    if not config.resolve().is_relative_to(working_dir.resolve()):
        raise ConfigError(
            f"{config} lies outside of {working_dir}, which is what a job gets to see: name a --working-dir"
        )
    run = os.path.normpath(os.path.join(storage or "", settings.run.dir))
    if settings.run.store:
        run = settings.run.store.rstrip("/")
    elif storage and is_uri(storage) and not os.path.isabs(settings.run.dir):
        run = f"{storage.rstrip('/')}/{os.path.normpath(settings.run.dir)}"
    elif not os.path.isabs(run):
        raise RunError(
            f"run.dir {settings.run.dir} is relative: give an absolute one, or --storage, a folder that all nodes see"
        )
    told = config.resolve().relative_to(working_dir.resolve())
    if unseen := {*told.parts[:1]} & {name.strip("/") for name in EXCLUDED}:
        raise ConfigError(f"{config} lies in {unseen.pop()}, which is not copied to the cluster: move it")
    client = RunJobs(address)
    command = ["ipl", "--config", str(told), *(["--next-cycle"] if next_cycle else []), *(overrides or [])]
    job, new = client.submit(run, command, working_dir, storage)
    _begun(client, job, new, follow)


@jobs.command()
def resume(
    name: JobName, address: Address = None, working_dir: WorkingDir = Path("."), follow: Follow = False
) -> None:
    """Submit the run of a job again, with the same arguments: it goes on where it was.

    Example: `raysr jobs resume demo-3f2a91c0-001`
    """
    from raysr.jobs import RunJobs

    client = RunJobs(address)
    job, new = client.resume(name, working_dir)
    _begun(client, job, new, follow)


@jobs.command("list")
def list_jobs(address: Address = None) -> None:
    """List the jobs of all runs, in the order that they were submitted in. Example: `raysr jobs list`"""
    from raysr.jobs import RunJobs

    rows = [
        (job.id, job.status.lower(), _clock(job.began), _took(job), job.run)
        for job in RunJobs(address).jobs()
    ]
    print_table(("job", "state", "began", "took", "run"), rows)


@jobs.command()
def follow(name: JobName, address: Address = None) -> None:
    """Print what a job prints until it ends, and end with its exit code. Ctrl-C leaves the job alone.

    Example: `raysr jobs follow demo-3f2a91c0-001`
    """
    from raysr.jobs import RunJobs

    _follow(RunJobs(address), name)


@jobs.command()
def stop(name: JobName, address: Address = None) -> None:
    """Stop a job as Ctrl-C does: what is finished stays, and it can be resumed.

    Example: `raysr jobs stop demo-3f2a91c0-001`
    """
    from raysr.jobs import RunJobs

    job = RunJobs(address).stop(name)
    typer.echo(f"{job.id}: {job.status.lower()}")


def _begun(client: "RunJobs", job: "RunJob", new: bool, follow: bool) -> None:
    typer.echo(f"{job.id}: {'submitted' if new else 'works on this run already'} ({job.run})")
    if follow:
        _follow(client, job.id)


def _follow(client: "RunJobs", name: str) -> None:
    try:
        job = client.follow(name, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        typer.echo(f"\n{name} goes on; raysr jobs stop {name} would stop it", err=True)
        return
    if job.status != "SUCCEEDED":
        typer.echo(f"{job.id}: {job.status.lower()}", err=True)
        raise typer.Exit(job.code or 1)


def _clock(seconds: float | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _took(job: "RunJob") -> str | None:
    if job.began is None:
        return None
    minutes, seconds = divmod(round((job.ended or time.time()) - job.began), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
