"""`raysr export`: a model for other runtimes."""

from pathlib import Path
from typing import Annotated

import typer

from raysr.cli.common import ModelOption, pick_entry
from raysr.model.chunking import CHUNKING, Chunking


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("export")(export)


def export(
    source: Annotated[
        Path, typer.Argument(metavar="POOL_OR_ENTRY", help="A model pool, or one entry of it.")
    ],
    out: Annotated[Path, typer.Argument(help="The folder for step.onnx and the tokeniser.")],
    model: ModelOption = "latest",
    chunk: int = typer.Option(CHUNKING.size, help="Encoder frames that a step recognises at a time."),
    left: int = typer.Option(CHUNKING.left, help="Chunks of the past that they attend to."),
    lookahead: int = typer.Option(CHUNKING.lookahead, help="Frames beyond them that a step reads too."),
    int8: bool = typer.Option(False, "--int8", help="Also write step.int8.onnx, with int8 weights."),
) -> None:
    """Write a model's streaming step as ONNX, with its caches as inputs and outputs.

    Example: `raysr export runs/demo/pool exported --int8`
    """
    from raysr.export.entry import export_entry
    from raysr.pool import MANIFEST, Pool

    if (source / MANIFEST).is_file():
        entry = Pool(source.absolute().parent).get(source.absolute().name)
    else:
        entry = pick_entry(source, model)
    for file in export_entry(entry, out, Chunking(chunk, left, lookahead), int8):
        typer.echo(file)
