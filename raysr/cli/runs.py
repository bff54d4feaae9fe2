"""`raysr demo | fetch | ipl | label | recipes | train`: runs of the loop, whole or in part."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from raysr.cli.common import ConfigOption, Overrides


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (demo, fetch, ipl, label, recipes, train):
        app.command()(command)


def demo(
    folder: Annotated[
        Path | None, typer.Option("--dir", help="The run's folder: runs/demo, or runs/demo-short.")
    ] = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Of the endpoint; another if it is taken.")
    ] = 8000,
    short: Annotated[
        bool, typer.Option("--short", help="A few updates only: does everything work here?")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Label, train and serve over the built-in corpus, end to end, on this machine.

    Ctrl-C is safe: the same command resumes. Example: `raysr demo`
    """
    from raysr.demo import run_demo

    folder = folder or Path("runs/demo-short" if short else "runs/demo")
    run_demo(folder, short, port, overrides or [])


def fetch(
    store: Annotated[str, typer.Argument(help="Where a run is kept: its `run.store`.")],
    folder: Annotated[Path, typer.Argument(help="Where it goes; files that differ are replaced.")],
    below: Annotated[
        str, typer.Option(help="Only what lies below this, such as `pool/` or `cycles/002/`.")
    ] = "",
) -> None:
    """Fetch a run, or a part of it, from the object store that keeps it.

    Example: `raysr fetch s3://speech/runs/mine runs/mine --below pool/`
    """
    from raysr.errors import RunError
    from raysr.ipl.folder import owning
    from raysr.store.folder import Store

    with owning(folder):
        index = Store(store).fetch(folder, below)
    if index is None:
        raise RunError(f"{store} keeps no run")
    count = sum(name.startswith(below) for name in index.files)
    if not count:
        raise RunError(f"{store} keeps nothing below {below}; there is {', '.join(_tops(index.files))}")
    typer.echo(f"{count} files, as {index.by} kept them: {folder}")


def _tops(names: Iterable[str]) -> list[str]:
    """Return the files and folders that paths begin with."""
    return sorted({name.partition("/")[0] + ("/" if "/" in name else "") for name in names})


def ipl(
    config: ConfigOption,
    next_cycle: Annotated[
        bool,
        typer.Option("--next-cycle", help="One cycle alone: that which was interrupted, or else the next."),
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Run iterative pseudo-labelling: label, filter, train, cycle after cycle, unattended.

    Every step is done once: the same command goes on with a run that was stopped, and asks only for more
    cycles when it is finished. Example: `raysr ipl --config jobs/conf/demo.yaml run.cycles=4`
    """
    from raysr.evaluate.report import write_report
    from raysr.ipl.run import run_ipl

    asked = overrides or []
    folder = run_ipl(config, [*asked, f"run.cycles={_finished(config, asked) + 1}"] if next_cycle else asked)
    typer.echo(f"report: {write_report(folder)}")
    typer.echo(f"serve it: raysr serve --pool {folder / 'pool'}")


def _finished(config: Path, overrides: list[str]) -> int:
    """Return how many cycles a run has finished."""
    from raysr.ipl.config import read_config
    from raysr.ipl.folder import place, store_of
    from raysr.ipl.stored import finished_cycles

    run = read_config(config, overrides).run
    return finished_cycles(place(run.dir), store_of(run.dir, run.store))


def label(
    config: ConfigOption,
    out: Annotated[Path, typer.Option(help="The manifest of kept labels to write.")],
    overrides: Overrides = None,
) -> None:
    """Label a run's unlabelled audio and filter the labels, without training: the first half of a cycle.

    The run's builder picks the teachers; `builder.kind=external` labels with recognisers from pip. Why an
    utterance was dropped is in the run's folder: `cycles/NNN/decisions.parquet`.

    Example: `raysr label --config my.yaml --out kept.jsonl builder.kind=external selector.first_cycle=0`
    """
    from raysr.config import folders
    from raysr.corpus.manifest import write_jsonl
    from raysr.ipl.config import read_config
    from raysr.ipl.progress import Progress
    from raysr.ipl.run import open_run

    settings = read_config(config, overrides or [])
    with open_run(settings, Progress(), [*folders(config), Path.cwd()]) as run:
        cycle = settings.first_cycle
        step, plugin = run.steps(cycle), run.plugins(cycle)
        selected = step.selection(lambda: plugin.selector(cycle, run.unlabelled))
        teachers = step.teachers(lambda: plugin.builder(run.pool))
        predicted = step.predictions(lambda: plugin.recogniser(selected, teachers))
        kept = step.decisions(selected, lambda: plugin.filter(predicted))
        write_jsonl(out, kept)
        typer.echo(f"{len(kept)} of {len(selected)} utterances kept: {out}")


def recipes(
    folder: Annotated[Path, typer.Argument(help="Where they go; it should not be there yet.")],
) -> None:
    """Write the recipes that come with raysr to a folder, to run them or to build on them.

    Example: `raysr recipes conf`, then `raysr ipl --config conf/demo.yaml`
    """
    import shutil

    from raysr.demo import RECIPE
    from raysr.errors import ConfigError

    try:
        shutil.copytree(RECIPE.parent, folder)
    except FileExistsError:
        raise ConfigError(f"{folder} is there already: name a new folder") from None
    for path in sorted(folder.rglob("*.yaml")):
        typer.echo(path)


def train(config: ConfigOption, overrides: Overrides = None) -> None:
    """Train one student on the labelled audio of a run alone, publish it to the pool, and score it.

    It is the run's cycle 0 with nothing selected; `raysr ipl` with the same configuration goes on from it.

    Example: `raysr train --config my.yaml trainer.steps=2000`
    """
    from raysr.ipl.run import run_ipl

    folder = run_ipl(config, [*(overrides or []), "run.cycles=1", "selector.first_cycle=1"])
    typer.echo(f"serve it: raysr serve --pool {folder / 'pool'}")
