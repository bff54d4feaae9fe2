"""`raysr pool`: look at the model pool of a run."""

from pathlib import Path
from typing import Any

import typer

from raysr.cli.common import PoolOption, print_table

pool = typer.Typer(no_args_is_help=True, help="Look at a model pool: every checkpoint a run has published.")


def register(app: typer.Typer) -> None:
    """Add the group to the application."""
    app.add_typer(pool, name="pool")


@pool.command("list")
def list_entries(folder: PoolOption) -> None:
    """List the entries, oldest first. Example: `raysr pool list --pool runs/demo/pool`"""
    from raysr.errors import PoolError
    from raysr.pool import Pool

    entries = Pool(folder).entries()
    if not entries:
        raise PoolError(f"pool {folder} has no entry; a run publishes its students under <run>/pool")
    rows = [
        (
            e.name,
            e.metrics.get("cycle"),
            e.metrics.get("step"),
            _percent(e.metrics.get("dev_wer")),
            e.weights_hash[:12],
            "unfit" if e.unfit else "",
        )
        for e in entries
    ]
    print_table(("entry", "cycle", "step", "dev WER", "weights", ""), rows)


@pool.command()
def show(name: str, folder: PoolOption) -> None:
    """Show one entry, and check its files against their hashes.

    Example: `raysr pool show NAME --pool runs/demo/pool`
    """
    from raysr.pool import Pool

    entry = Pool(folder).get(name).verify()
    rows: list[tuple[str, Any]] = [("folder", entry.path), ("weights", entry.weights_hash)]
    rows += [(key, value) for key, value in entry.metrics.items()]
    rows += [(f"file {file}", f"{_size(entry.path / file)} kB, as published") for file in sorted(entry.files)]
    print_table((name, ""), rows)


def _percent(value: Any) -> str | None:
    return f"{100 * value:.1f}%" if isinstance(value, int | float) else None


def _size(path: Path) -> int:
    return max(1, round(path.stat().st_size / 1000))
