"""`raysr evaluate` and `raysr report`: how good a model is, and what a run did."""

import tempfile
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raysr.cli.common import ModelOption, PoolOption, print_table

if TYPE_CHECKING:
    from raysr.corpus.features import FeatureCache
    from raysr.corpus.utterance import Utterance
    from raysr.evaluate.evaluate import Scores


class MethodChoice(StrEnum):
    """How to decode."""

    greedy = "greedy"
    lm = "lm"
    both = "both"


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("evaluate")(evaluate)
    app.command("report")(report)
    app.command("filter")(filter_)


def evaluate(
    pool: PoolOption,
    manifests: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=]MANIFEST...", help="Transcribed test sets.")
    ] = None,
    demo: bool = typer.Option(False, "--demo", help="Measure on the test sets of the built-in corpus."),
    model: ModelOption = "latest",
    method: MethodChoice = typer.Option(
        MethodChoice.both, help="Decode greedily, with the language model, or both."
    ),
    tag: str | None = typer.Option(None, help="Break every set down by this tag, such as `engine`."),
    worst: int = typer.Option(0, min=0, help="Show this many utterances with most errors."),
    cache: Path | None = typer.Option(None, help="Keep features here, for another evaluation."),
    json_file: Path | None = typer.Option(None, "--json", help="Write the result to this file as well."),
) -> None:
    """Measure the word error rate (WER) of a model, with 95% intervals.

    Example: `raysr evaluate clean=test.jsonl music=test-music.jsonl --pool runs/demo/pool`
    """
    from raysr.cli.common import pick_entry
    from raysr.corpus.demo import demo_corpus
    from raysr.corpus.features import FeatureCache
    from raysr.corpus.manifest import open_manifest
    from raysr.evaluate.evaluate import METHODS, score_part
    from raysr.pool import load_entry

    entry = pick_entry(pool, model)
    sets = {name: list(open_manifest(path)) for name, path in map(_named, manifests or [])}
    if demo:
        sets |= {name: list(manifest) for name, manifest in demo_corpus().tests.items()}
    if not sets:
        raise typer.BadParameter("name a test set, or --demo for those of the built-in corpus")
    recogniser = load_entry(entry)
    methods = METHODS if method is MethodChoice.both else tuple(m for m in METHODS if m == method.value)
    scored: dict[tuple[str, str], Scores] = {}
    with tempfile.TemporaryDirectory() as scratch:
        features = FeatureCache(cache or Path(scratch), recogniser.config.fbank)
        for name, utterances in sets.items():
            sound = _readable(features, name, utterances)
            for chosen in methods:
                scored[name, chosen] = score_part(recogniser, sound, features, chosen)
    rows = [
        row
        for (name, chosen), scores in scored.items()
        for row in _rows(name, chosen, scores, sets[name], tag)
    ]
    print_table(
        ("set", "method", "WER", "95% interval", "sub", "del", "ins", "words", "CER"), rows, entry.name
    )
    _print_worst(scored, worst)
    if json_file:
        _write_json(json_file, entry.name, scored)


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, finished or not.")],
) -> None:
    """Write a run's report.html: tables, plots and configuration in one file.

    Prints what the filters of the last cycle that labelled are worth. Example: `raysr report runs/demo`
    """
    from raysr.evaluate.report import write_report
    from raysr.evaluate.run_files import read_run

    page = write_report(run)
    for judged in read_run(run).filters[-1:]:
        _print_filters(judged)
    typer.echo(str(page))


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


def _named(argument: str) -> tuple[str, str]:
    name, equals, path = argument.partition("=")
    return (name, path) if equals else (Path(argument).stem, argument)


def _readable(cache: "FeatureCache", name: str, utterances: "Sequence[Utterance]") -> "list[Utterance]":
    from raysr.errors import CorpusError

    failures = cache.ensure(utterances)
    for identifier, error in failures.items():
        typer.echo(f"left out {identifier}: {error}", err=True)
    sound = [utterance for utterance in utterances if utterance.id not in failures]
    if not sound:
        raise CorpusError(f"test set '{name}' has no utterance that can be read")
    return sound


def _rows(
    name: str, method: str, scores: "Scores", utterances: "Sequence[Utterance]", tag: str | None
) -> list[tuple[Any, ...]]:
    from raysr.evaluate.bootstrap import wer_interval
    from raysr.evaluate.evaluate import Scores

    groups = {name: scores}
    if tag:
        values = {u.id: u.tags.get(tag, "–") for u in utterances}
        for value in sorted(set(values.values())):
            groups[f"{name}, {tag}={value}"] = Scores(tuple(r for r in scores.rows if values[r.id] == value))
    rows = []
    for label, group in groups.items():
        words = group.words
        interval = wer_interval([r.words.errors for r in group.rows], [r.words.reference for r in group.rows])
        rows.append(
            (
                label,
                method,
                _percent(group.wer),
                f"{_percent(interval.low)} to {_percent(interval.high)}",
                words.substitutions,
                words.deletions,
                words.insertions,
                words.reference,
                _percent(group.characters.rate),
            )
        )
    return rows


def _print_worst(scored: "dict[tuple[str, str], Scores]", worst: int) -> None:
    rows = [(row, name, method) for (name, method), scores in scored.items() for row in scores.rows]
    for row, name, method in sorted(rows, key=lambda item: -item[0].words.errors)[:worst]:
        typer.echo(f"\n{row.id} ({name}, {method}): {row.words.errors} errors in {row.words.reference} words")
        typer.echo(f"  reference:  {row.reference}\n  hypothesis: {row.hypothesis}")


def _write_json(path: Path, entry: str, scored: "dict[tuple[str, str], Scores]") -> None:
    import json

    wer: dict[str, dict[str, float | None]] = {}
    for (name, method), scores in scored.items():
        wer.setdefault(method, {})[name] = scores.wer
    path.write_text(json.dumps({"entry": entry, "wer": wer}, indent=2) + "\n", encoding="utf-8")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"
