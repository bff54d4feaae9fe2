"""`raysr preflight`: what this machine has for raysr, measured and not guessed."""

from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("preflight")(preflight)


def preflight(
    folder: Path = typer.Option(Path("runs"), "--dir", help="Where runs will be written."),
    port: int = typer.Option(8000, min=1, max=65535, help="The port `raysr serve` would listen on."),
    train: bool = typer.Option(
        False, "--train", help="Train a student for a few updates as well, without Ray."
    ),
) -> None:
    """Check this machine: Python, devices, collectives, Ray, disk, ports.

    Exits with 1 when something that raysr needs is missing. Example: `raysr preflight --dir /data/runs`
    """
    from rich.console import Console
    from rich.table import Table

    from raysr.preflight import check

    results = check(folder, port)
    table = Table("", "check", "found", "what to do", box=None, header_style="bold")
    marks = {"ok": "[green]ok", "note": "[yellow]note", "missing": "[red]missing"}
    for result in results:
        table.add_row(marks[result.status], result.name, result.found, result.advice)
    Console().print(table)
    if train:
        _train()
    if any(result.status == "missing" for result in results):
        raise typer.Exit(1)


def _train() -> None:
    import tempfile

    import torch

    from raysr.demo import train_here

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    with tempfile.TemporaryDirectory() as scratch:
        metrics = train_here(Path(scratch) / "run")
    seconds = metrics["seconds_per_step"]
    typer.echo(
        f"trained on {device}: {metrics['step']} updates, loss {metrics['loss']:.1f}, {seconds:.2f} s each"
    )
