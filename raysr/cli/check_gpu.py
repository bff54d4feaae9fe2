"""`raysr check-gpu`: whether training, decoding and streaming do on this machine's GPU what they do on a CPU."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("check-gpu")(check_gpu)


def check_gpu(
    device: Annotated[
        Literal["cuda", "cpu"], typer.Option(help="`cpu` runs all of it in a short form, GPU or none.")
    ] = "cuda",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write what was measured there as well.")
    ] = None,
) -> None:
    """Train in every precision, compare with the CPU, stream, exchange gradients, measure. Minutes, without Ray.

    A line for each check, with its numbers; exits with 1 when any failed. Example: `raysr check-gpu --json gpu.json`
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        typer.echo("no GPU: torch finds no CUDA device here; --device cpu runs the checks in a short form")
        if json_file:
            json_file.write_text(json.dumps({"device": None, "ok": True, "checks": []}, indent=1))
        return

    from raysr.train.check.run import check_device

    where = torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else torch.device("cpu")
    report = check_device(where, typer.echo)
    failed = sum(not finding.passed for finding in report.findings)
    typer.echo(f"{report.device}: {len(report.findings)} checks in {report.seconds:.0f} s, {failed} failed")
    if json_file:
        json_file.write_text(json.dumps(report.dump(), indent=1))
    if failed:
        raise typer.Exit(1)
