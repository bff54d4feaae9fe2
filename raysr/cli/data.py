"""`raysr data`: bring audio in, and look at a corpus."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raysr.cli.common import print_table

if TYPE_CHECKING:
    from raysr.corpus.importers.report import ImportReport
    from raysr.corpus.utterance import Utterance

data = typer.Typer(no_args_is_help=True, help="Bring audio in, and look at a corpus.")
SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the group to the application."""
    app.add_typer(data, name="data")


@data.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A folder of audio files, in any format FFmpeg reads.")],
    out: Annotated[Path, typer.Argument(help="Where the Parquet shards go.")],
    transcripts: Path | None = typer.Option(
        None,
        help="TSV (name, tab, text), JSONL or `name: text` lines; `.txt` files beside the audio need none.",
    ),
    held_out: float = typer.Option(0.0, min=0, max=0.99, help="Share of the files set apart for testing."),
    max_duration: float = typer.Option(120.0, min=0.1, help="Longest file to take, in seconds."),
    truth_apart: bool = typer.Option(
        False,
        "--truth-apart",
        help="Keep transcripts out of the shards, in truth.jsonl, to score labels with.",
    ),
    any_script: bool = typer.Option(False, "--any-script", help="Take transcripts in several scripts."),
    verbatim: bool = typer.Option(False, "--verbatim", help="Leave transcripts as written."),
    language: str | None = typer.Option(None, help="Label every utterance with this language, such as en."),
    workers: int = typer.Option(2, min=1, help="Threads that decode audio."),
) -> None:
    """Import a folder of audio, with transcripts where there are any.

    A file that cannot be used is counted and listed in OUT/import.json with its reason; it never stops the
    rest. The same command again takes in what is new.

    Example: `raysr data import recordings/ data/mine --transcripts words.tsv --held-out 0.2`
    """
    from raysr.corpus.importers.folder import import_folder

    with _progress("reading") as progress:
        report = import_folder(
            source,
            out,
            transcripts=transcripts,
            held_out=held_out,
            truth_apart=truth_apart,
            max_duration=max_duration,
            normalise_text=not verbatim,
            any_script=any_script,
            language=language,
            workers=workers,
            progress=progress,
        )
    _print_import(report)


@data.command()
def inspect(
    manifest: Annotated[str, typer.Argument(help="A JSONL manifest, a Parquet shard or a folder of shards.")],
    show: int = typer.Option(3, min=0, help="How many utterances to print."),
    tag: str = typer.Option("", help="Count utterances by this tag."),
) -> None:
    """Say what a corpus holds: hours, lengths, transcripts, tags.

    Example: `raysr data inspect data/mine/all`
    """
    from raysr.corpus.manifest import open_manifest
    from raysr.errors import CorpusError

    utterances = list(open_manifest(manifest))
    if not utterances:
        raise CorpusError(f"{manifest} holds no utterance")
    print_table(("corpus", manifest), _summary(utterances))
    if tag:
        counts = Counter(utterance.tags.get(tag, "–") for utterance in utterances)
        print_table((tag, "utterances"), counts.most_common())
    for utterance in utterances[:show]:
        typer.echo(f"{utterance.id}  {utterance.duration:.2f} s  {utterance.text or '(no transcript)'}")


def _summary(utterances: "Sequence[Utterance]") -> list[tuple[str, Any]]:
    durations = sorted(utterance.duration for utterance in utterances)
    with_text = [utterance.text for utterance in utterances if utterance.text]
    words = Counter(word for text in with_text for word in text.split())
    rates = Counter(utterance.sample_rate for utterance in utterances)
    return [
        ("utterances", len(utterances)),
        ("hours", f"{sum(durations) / 3600:.2f}"),
        ("seconds, shortest / median / longest", " / ".join(f"{d:.1f}" for d in _spread(durations))),
        ("sample rates (Hz)", ", ".join(str(rate) for rate, _ in rates.most_common())),
        ("with a transcript", len(with_text)),
        ("words / different words", f"{sum(words.values())} / {len(words)}"),
        ("speakers", len({u.speaker for u in utterances if u.speaker}) or None),
        ("languages", ", ".join(sorted({u.language for u in utterances if u.language})) or None),
        ("tags", ", ".join(sorted({name for u in utterances for name in u.tags})) or None),
        ("mixed in when loaded", sum(utterance.mix is not None for utterance in utterances)),
    ]


def _spread(ordered: Sequence[float]) -> tuple[float, float, float]:
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]


def _print_import(report: "ImportReport") -> None:
    typer.echo(
        f"{report.added} utterances added; {report.out} holds {report.utterances} "
        f"({report.hours:.2f} h), {report.with_text} with a transcript"
    )
    for name, folder in report.sets.items():
        typer.echo(f"  {name}: {folder}")
    for kind, count in report.counts().items():
        typer.echo(f"  not taken, {kind}: {count}")
    for problem in report.problems[:SHOWN]:
        typer.echo(f"    {problem.where}: {problem.reason}")
    if report.problems:
        typer.echo(f"  every one with its reason: {Path(report.out) / 'import.json'}")


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int], None]]:
    from rich.progress import Progress

    with Progress(transient=True) as bars:
        task = bars.add_task(label, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
