"""What several commands share: the options that name a model, and tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from raysr.pool import Entry

PoolOption = Annotated[Path, typer.Option("--pool", help="A model pool, such as runs/demo/pool.")]
ModelOption = Annotated[
    str,
    typer.Option("--model", help="An entry of the pool by name, or `latest`, or `best` (lowest WER on dev)."),
]
ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="A YAML file; `raysr recipes FOLDER` writes some.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Change single values of the configuration: a.b.c=value"),
]


def pick_entry(pool: Path, model: str) -> "Entry":
    """Return the entry that `--pool` and `--model` name; raise PoolError where there is none."""
    from raysr.errors import PoolError
    from raysr.pool import Pool

    found = Pool(pool)
    if model not in {"latest", "best"}:
        return found.get(model)
    entry = found.latest() if model == "latest" else found.best()
    if entry is None:
        what = "no entry" if model == "latest" else "no entry with a WER on dev; try --model latest"
        raise PoolError(f"pool {pool} has {what}; a run publishes its students under <run>/pool")
    return entry


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> None:
    """Print a table whose first column is a name and whose others are values."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*("–" if cell is None else str(cell) for cell in row))
    Console(markup=False).print(table)
