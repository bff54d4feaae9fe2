"""`raysr evaluate`: how good a model is, or texts that were made elsewhere."""

import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raysr.cli.common import ModelOption, print_table
from raysr.model.chunking import CHUNKING, Chunking

if TYPE_CHECKING:
    from raysr.corpus.features import FeatureCache
    from raysr.corpus.utterance import Utterance
    from raysr.evaluate.alignment import Costs
    from raysr.evaluate.hypotheses import Hypotheses
    from raysr.evaluate.outcome import Outcome
    from raysr.evaluate.tables import NameOf
    from raysr.pool import Entry

    Sets = Mapping[str, Sequence[Utterance]]


class MethodChoice(StrEnum):
    """How to decode."""

    greedy = "greedy"
    lm = "lm"
    stream = "stream"


class CostsChoice(StrEnum):
    """What words are aligned by."""

    levenshtein = "levenshtein"
    nist = "nist"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("evaluate")(evaluate)


def evaluate(
    manifests: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=]MANIFEST...", help="Transcribed test sets.")
    ] = None,
    pool: Annotated[Path | None, typer.Option("--pool", help="A model pool, such as runs/demo/pool.")] = None,
    model: ModelOption = "latest",
    demo: bool = typer.Option(False, "--demo", help="Measure on the test sets of the built-in corpus."),
    method: Annotated[
        list[MethodChoice] | None,
        typer.Option(
            help="Greedy, with the language model, or as a live stream; greedy and lm unless given. "
            "Of texts, those made so."
        ),
    ] = None,
    chunk: int = typer.Option(CHUNKING.size, min=1, help="Of `stream`: so many 40 ms frames at a time."),
    left_chunks: int = typer.Option(
        CHUNKING.left, min=-1, help="Of `stream`: chunks of the past; -1 for all."
    ),
    lookahead: int = typer.Option(CHUNKING.lookahead, min=0, help="Of `stream`: frames beyond a chunk."),
    hypotheses: Annotated[
        Path | None,
        typer.Option(help='Score these texts instead of a model\'s: JSON lines {"id": …, "text": …}.'),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Compare with another entry of the pool, or with the texts of a file.")
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Break sets down by duration, speaker, language or tag:NAME; several times if you like."
        ),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            help="What is drawn as a whole for intervals where utterances are alike, such as `speaker`."
        ),
    ] = None,
    names: Annotated[
        Path | None, typer.Option(help="Words or names, one a line, whose recall is wanted.")
    ] = None,
    train: Annotated[
        list[str] | None,
        typer.Option(
            help="A manifest the model was trained on, for the recall of words that are rare there."
        ),
    ] = None,
    rare: int = typer.Option(0, min=0, help="Rare is what --train has at most so many times."),
    costs: CostsChoice = typer.Option(
        CostsChoice.levenshtein, help="Align by the fewest errors, or by NIST's costs as sclite does."
    ),
    worst: int = typer.Option(0, min=0, help="Show this many utterances with most errors."),
    alignments: Annotated[
        Path | None, typer.Option(help="Write all utterances to this file, word under word.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the texts to this file, to compare another model with.")
    ] = None,
    cache: Path | None = typer.Option(None, help="Keep features here, for another evaluation."),
    json_file: Path | None = typer.Option(None, "--json", help="Write the result to this file as well."),
) -> None:
    """Measure the word error rate (WER) of a model, with 95% intervals, and whatever else is asked for.

    Example: `raysr evaluate clean=test.jsonl music=test-music.jsonl --pool runs/demo/pool --by speaker`

    Two models: `raysr evaluate clean=test.jsonl --pool runs/demo/pool --model best --against cycle-000`
    """
    from raysr.corpus.disk import replacing
    from raysr.evaluate import tables
    from raysr.evaluate.hypotheses import write_hypotheses

    if (pool is None) == (hypotheses is None):
        raise typer.BadParameter("give --pool for a model, or --hypotheses for texts that are there already")
    sets = _sets(manifests or [], demo)
    groupings = {name: _grouping(name, "--by") for name in by or []}
    units = _unit(unit) if unit else None
    lists = _names(names) | _rare(train or [], rare, sets)
    source = _source(pool, model, hypotheses)
    rival = None if against is None else _rival(pool, against)
    chosen = [choice.value for choice in method] if method else None
    ways = _Ways(chosen, Chunking(chunk, left_chunks, lookahead), costs.value, cache)
    if rival is not None and not any(
        tables.paired(ways.of(source, name), ways.of(rival, name)) for name in sets
    ):
        here, there = (sorted({m for name in sets for m in ways.of(s, name)}) for s in (source, rival))
        raise typer.BadParameter(
            f"nothing can be compared: methods {', '.join(here)} here, {', '.join(there)} there; "
            "choose with --method",
            param_hint="--against",
        )

    title, outcomes = source.name, ways.outcomes(source, sets)
    heard = {outcome.name: outcome.utterances for outcome in outcomes}
    others = [] if rival is None else ways.outcomes(rival, heard)
    found = tables.summaries(outcomes, groupings, units)
    compared = tables.comparisons(outcomes, others, groupings, units)
    wanted = tables.wanted(outcomes, lists)
    for table in tables.tables(title, found, wanted, compared, against or ""):
        print_table(table.columns, table.rows, table.title)
    _print_worst(outcomes, worst, ways.costs)
    if alignments is not None:
        _write_alignments(alignments, outcomes, ways.costs)
    if save is not None:
        write_hypotheses(save, outcomes)
    if json_file is not None:
        result = tables.as_json(title, found, wanted, compared)
        with replacing(json_file) as file:
            file.write(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n")


@dataclass(frozen=True)
class _Ways:
    """How sets become outcomes."""

    methods: list[str] | None
    chunking: Chunking
    costs: "Costs"
    cache: Path | None

    def outcomes(self, source: "Entry | Hypotheses", sets: "Sets") -> "list[Outcome]":
        """Return what a model makes of test sets, or what texts are worth, by each method they were made by."""
        from raysr.evaluate.hypotheses import Hypotheses
        from raysr.evaluate.outcome import Outcome

        if not isinstance(source, Hypotheses):
            return list(self._recognised(source, sets))
        return [
            Outcome.of(name, method, spoken, source.of(name, method, [u.id for u in spoken]), self.costs)
            for name, spoken in sets.items()
            for method in self.of(source, name)
        ]

    def of(self, source: "Entry | Hypotheses", name: str) -> list[str]:
        """Return the methods that a set is recognised by, or was."""
        from raysr.evaluate.hypotheses import Hypotheses

        if isinstance(source, Hypotheses):
            found = source.methods(name)
            return found if self.methods is None else [method for method in found if method in self.methods]
        return self.methods or [MethodChoice.greedy.value, MethodChoice.lm.value]

    def _recognised(self, entry: "Entry", sets: "Sets") -> "Iterator[Outcome]":
        from raysr.corpus.features import FeatureCache
        from raysr.ipl.progress import Progress
        from raysr.pool import load_entry
        from raysr.stream.recognising import recognise_set

        recogniser = load_entry(entry)
        with tempfile.TemporaryDirectory() as scratch:
            features = FeatureCache(self.cache or Path(scratch), recogniser.config.fbank)
            for name, utterances in sets.items():
                sound = _readable(features, name, utterances)
                for method in self.of(entry, name):
                    with Progress().track(f"{entry.name}, {name}, {method}", len(sound)) as update:
                        ways = method, self.chunking, features, self.costs
                        yield recognise_set(recogniser, name, sound, *ways, lambda done: update(done, ""))


def _source(pool: Path | None, model: str, hypotheses: Path | None) -> "Entry | Hypotheses":
    from raysr.cli.common import pick_entry
    from raysr.evaluate.hypotheses import Hypotheses

    if hypotheses is not None:
        return Hypotheses.read(hypotheses)
    assert pool is not None
    return pick_entry(pool, model)


def _rival(pool: Path | None, against: str) -> "Entry | Hypotheses":
    if Path(against).is_file():
        return _source(None, "", Path(against))
    if pool is None:
        raise typer.BadParameter(f"there is no file '{against}'", param_hint="--against")
    return _source(pool, against, None)


def _sets(manifests: Sequence[str], demo: bool) -> "Sets":
    from raysr.corpus.demo import demo_corpus
    from raysr.corpus.manifest import open_manifest

    sets: dict[str, Sequence[Utterance]] = {}
    named = [(name, open_manifest(path)) for name, path in map(_named, manifests)]
    for name, manifest in [*named, *(demo_corpus().tests.items() if demo else ())]:
        if name in sets:
            raise typer.BadParameter(f"two test sets are called '{name}'; write NAME=MANIFEST")
        sets[name] = list(manifest)
    if not sets:
        raise typer.BadParameter("name a test set, or --demo for those of the built-in corpus")
    return sets


def _named(argument: str) -> tuple[str, str]:
    name, equals, path = argument.partition("=")
    return (name, path) if equals else (Path(argument).stem, argument)


def _grouping(by: str, option: str) -> "NameOf":
    from pydantic import TypeAdapter, ValidationError

    from raysr.ipl.strata import By, stratum

    try:
        TypeAdapter(By).validate_python(by)
    except ValidationError:
        raise typer.BadParameter(
            f"duration, speaker, language or tag:NAME, not '{by}'", param_hint=option
        ) from None
    return lambda utterance: stratum(utterance, by)


def _unit(by: str) -> "NameOf":
    """Return what an utterance is drawn with; one of which that is not known is drawn by itself."""
    from raysr.ipl.strata import UNKNOWN

    name_of = _grouping(by, "--unit")
    return lambda utterance: name if (name := name_of(utterance)) != UNKNOWN else f"{UNKNOWN}: {utterance.id}"


def _readable(cache: "FeatureCache", name: str, utterances: "Sequence[Utterance]") -> "list[Utterance]":
    from raysr.errors import CorpusError

    failures = cache.ensure(utterances)
    for identifier, error in failures.items():
        typer.echo(f"left out {identifier}: {error}", err=True)
    sound = [utterance for utterance in utterances if utterance.id not in failures]
    if not sound:
        raise CorpusError(f"test set '{name}' has no utterance that can be read")
    return sound


def _names(path: Path | None) -> dict[str, Collection[str]]:
    """Return the words and names of a file under its name."""
    from raysr.errors import CorpusError
    from raysr.text.normalise import normalise

    if path is None:
        return {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: cannot be read as UTF-8 text, one name a line ({error})") from None
    return {path.name: {normalise(line) for line in lines}}


def _rare(train: Sequence[str], most: int, sets: "Sets") -> dict[str, Collection[str]]:
    """Return the words of test sets that are rare in what was trained on."""
    from raysr.corpus.manifest import open_manifest
    from raysr.errors import CorpusError
    from raysr.evaluate.rare_words import seldom
    from raysr.text.normalise import normalise

    if not train and most:
        raise typer.BadParameter("--rare counts in what was trained on: give --train as well")
    if not train:
        return {}
    texts = [normalise(utterance.text or "") for path in train for utterance in open_manifest(path)]
    if not any(texts):
        raise CorpusError(f"--train: {', '.join(train)} has no transcripts")
    said = (normalise(utterance.text or "") for utterances in sets.values() for utterance in utterances)
    return {
        "never trained on" if most == 0 else f"{most} times or less in training": seldom(texts, most, said)
    }


def _print_worst(outcomes: "Sequence[Outcome]", worst: int, costs: "Costs") -> None:
    from raysr.evaluate.alignment import readable
    from raysr.evaluate.outcome import pairs

    rows = [(row, outcome) for outcome in outcomes for row in outcome.rows]
    for row, outcome in sorted(rows, key=lambda item: -item[0].words.errors)[:worst]:
        told = f"{row.id} ({outcome.name}, {outcome.method})"
        typer.echo("\n" + readable(told, pairs(row, costs)), nl=False)


def _write_alignments(path: Path, outcomes: "Sequence[Outcome]", costs: "Costs") -> None:
    from raysr.corpus.disk import replacing
    from raysr.evaluate.alignment import readable
    from raysr.evaluate.outcome import pairs

    with replacing(path) as file:
        for outcome in outcomes:
            for row in outcome.rows:
                told = f"{row.id} ({outcome.name}, {outcome.method})"
                file.write((readable(told, pairs(row, costs)) + "\n").encode())
