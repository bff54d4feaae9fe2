"""`raysr report` and `raysr filter`: what a run did, and what other filters would have done."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raysr.cli.common import print_table

if TYPE_CHECKING:
    from raysr.evaluate.report import Listen


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("report")(report)
    app.command("filter")(filter_)


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, finished or not.")],
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Another run's folder to compare it with; several times if you like."),
    ] = None,
    oracle: Annotated[
        Path | None,
        typer.Option(
            help="A run on the true transcripts of what this one labels: gives the WER recovery rate."
        ),
    ] = None,
    audio: int = typer.Option(
        0,
        min=0,
        help="Let so many utterances of each list be heard and seen: their audio is then in the page.",
    ),
) -> None:
    """Write a run's report.html: tables, plots and configuration in one file, to be opened without a network.

    Prints what the filters of the last cycle that labelled are worth. Example: `raysr report runs/demo --audio 10`
    """
    from raysr.evaluate.report import write_report
    from raysr.evaluate.run_files import last_filters

    listen = _listener(run) if audio else None
    page = write_report(run, against or [], oracle, listen, audio)
    judged = last_filters(run)
    if judged is not None:
        _print_filters(judged)
    typer.echo(str(page))


def _listener(run: Path) -> "Listen":
    """Return what finds the audio of a run's test utterances; one that cannot be read is told and left out."""
    from functools import cache

    from raysr.corpus.demo import demo_corpus
    from raysr.corpus.load import load_waveform
    from raysr.corpus.manifest import open_manifest
    from raysr.corpus.utterance import Utterance
    from raysr.errors import RaysrError
    from raysr.evaluate.listening import Listening, listening
    from raysr.ipl.config import read_config

    data = read_config(run / "config.yaml").data

    @cache
    def by_id(name: str) -> dict[str, Utterance]:
        if name in data.tests:
            return {utterance.id: utterance for utterance in open_manifest(data.tests[name])}
        tests = demo_corpus().tests if data.demo and not data.tests else {}
        return {utterance.id: utterance for utterance in tests.get(name, ())}

    def listen(name: str, identifier: str) -> Listening | None:
        try:
            utterance = by_id(name).get(identifier)
            return None if utterance is None else listening(load_waveform(utterance))
        except RaysrError as error:
            typer.echo(f"cannot be heard: {error}", err=True)
            return None

    return listen


def filter_(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, finished or not.")],
    filters: Annotated[
        str | None,
        typer.Option(
            "--filter", help="A chain as in YAML, such as '[{kind: score, keep: 0.7}]'; else the run's."
        ),
    ] = None,
    cycle: Annotated[int | None, typer.Option(min=0, help="The last that labelled unless given.")] = None,
    good: Annotated[float, typer.Option(min=0, help="WER in percent up to which a label is good.")] = 10.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the result to this file as well.")
    ] = None,
) -> None:
    """Try other filters on what a run's teachers have said: nothing is labelled, and the run stays as it is.

    To train with them, start a run with them: decisions that a student was trained on are not rewritten.

    Example: `raysr filter runs/demo --filter '[{kind: empty}, {kind: score, keep: 0.7}]'`
    """
    import json

    from raysr.ipl.what_if import what_if

    judged = what_if(run, filters, cycle, good)
    _print_filters(judged)
    if json_file:
        json_file.write_text(json.dumps(judged, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _print_filters(judged: dict[str, Any]) -> None:
    from raysr.evaluate.filter_table import COLUMNS, filter_tables, strata_rows

    for title, rows in filter_tables(judged).items():
        print_table(COLUMNS, rows, f"filters of cycle {judged['cycle']}, {title}")
    rows = [(f"{kind}: {name}", *cells) for kind, name, *cells in strata_rows(judged)]
    print_table(("stratum", "utterances", "hours", "kept", "share"), rows, "hours kept")
