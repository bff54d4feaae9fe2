"""`raysr preflight`: what this machine has for raysr, or a cluster's network, measured and not guessed."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

MARKS = {"ok": "[green]", "note": "[yellow]", "warning": "[yellow]", "missing": "[red]", "failure": "[red]"}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("preflight")(preflight)


def preflight(
    folder: Annotated[Path, typer.Option("--dir", help="Where runs will be written.")] = Path("runs"),
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="The port `raysr serve` would listen on.")
    ] = 8000,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Check the network between the nodes of a Ray cluster instead.")
    ] = False,
    address: Annotated[str | None, typer.Option(help="The cluster's, such as 10.0.0.1:6379.")] = None,
    model_mb: Annotated[
        float | None,
        typer.Option(min=0.1, help="Size of the model in float32, to recommend how gradients are sent."),
    ] = None,
    require_rdma: Annotated[
        bool, typer.Option("--require-rdma", help="Fail where NCCL would fall back to sockets.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write what was found on the network there as well.")
    ] = None,
) -> None:
    """Check this machine: Python, devices, collectives, Ray, disk, ports. With --cluster, a cluster's network.

    Exits with 1 when something that raysr needs is missing. Example: `raysr preflight --dir /data/runs`

    On a cluster: `raysr preflight --cluster --address 10.0.0.1:6379 --dir /shared/runs --model-mb 120`
    """
    if cluster:
        passed = _network(address, folder, model_mb, require_rdma, json_file)
    else:
        passed = _machine(folder, port)
    if not passed:
        raise typer.Exit(1)


def _machine(folder: Path, port: int) -> bool:
    from raysr.preflight import check

    results = check(folder, port)
    _print(
        ("", "check", "found", "what to do"),
        ((result.status, result.name, result.found, result.advice) for result in results),
    )
    return all(result.status != "missing" for result in results)


def _network(
    address: str | None, folder: Path, model_mb: float | None, require_rdma: bool, json_file: Path | None
) -> bool:
    from raysr.preflight import check_network

    report = check_network(address, folder, model_mb, require_rdma)
    _print(
        ("", "check", "where", "found, and what to do"),
        ((f.level, f.check, f.where, "\n".join(filter(None, (f.found, f.mend)))) for f in report.findings),
    )
    if report.recommendation:
        typer.echo(str(report.recommendation))
    if json_file:
        json_file.write_text(json.dumps(report.dump(), indent=1))
    return report.passed


def _print(columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, box=None, header_style="bold")
    for status, *cells in rows:
        table.add_row(f"{MARKS[status]}{status}", *map(escape, cells))
    Console().print(table)
