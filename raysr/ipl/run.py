"""A run: its folder, its parts, and what it tells the world."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysr.cluster import Connection, connect
from raysr.corpus.disk import naming_full_disk
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import Manifest
from raysr.ipl import plugins as slots
from raysr.ipl.config import RunConfig, read_config
from raysr.ipl.context import CycleContext
from raysr.ipl.corpora import Corpora, open_corpora
from raysr.ipl.decisions import Decision, Rule, decide
from raysr.ipl.events import Events
from raysr.ipl.filter_hash import filter_hash
from raysr.ipl.folder import keep_config, owning, place
from raysr.ipl.handover import write_json
from raysr.ipl.materials import Materials
from raysr.ipl.plugins import Batcher, Builder, Initializer, Recogniser, Selector, Trainer
from raysr.ipl.predictions import Prediction
from raysr.ipl.progress import Progress
from raysr.ipl.scoring import label_report, score_student
from raysr.ipl.segmentation import Segmentation
from raysr.ipl.steps import Steps
from raysr.pool import Entry, Pool


@dataclass(frozen=True)
class FilterChain:
    """The configured filters as one: predictions in, a decision for each out."""

    rules: Sequence[Rule]
    hash: str

    def __call__(self, predictions: Iterable[Prediction]) -> list[Decision]:
        return decide(predictions, self.rules, self.hash)


@dataclass(frozen=True)
class Plugins:
    """One cycle's plug-ins, built."""

    selector: Selector
    builder: Builder
    recogniser: Recogniser
    filter: FilterChain
    batcher: Batcher
    initializer: Initializer
    trainer: Trainer


class Run:
    """A run in its folder, which the caller owns (see :func:`raysr.ipl.folder.owning`).

    ``connection`` is to the cluster; without one everything is done here.
    """

    def __init__(self, config: RunConfig, folder: Path, progress: Progress) -> None:
        self.config, self.folder, self.progress = config, folder, progress
        self.connection: Connection | None = None
        self.events = Events(folder / "events.jsonl")
        self.pool = Pool(folder / "pool")
        self.corpora: Corpora = open_corpora(config.data)
        self.materials = Materials(
            folder / "materials", config.tokenizer, config.lm, config.model, config.run.seed
        )
        self._reports: list[dict[str, Any]] = []

    @property
    def unlabelled(self) -> Manifest:
        """What may be labelled: long recordings as their segments, cut on first use."""
        use_ray = self.connection is not None
        segmentation = Segmentation(self.folder / "segments", self.config.segment, self.progress, use_ray)
        return segmentation(self.corpora.unlabelled)

    @property
    def labelled(self) -> Manifest | None:
        return self.corpora.labelled

    def steps(self, cycle: int) -> Steps:
        """Return the steps of a cycle, done or not."""
        folder = self.folder / "cycles" / f"{cycle:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        return Steps(folder, cycle, self.events)

    def plugins(self, cycle: int) -> Plugins:
        """Build a cycle's plug-ins."""
        c, context = self.config, self._context(cycle)
        return Plugins(
            selector=slots.SELECTORS.build(c.selector, context),
            builder=slots.BUILDERS.build(c.builder, context),
            recogniser=slots.RECOGNISERS.build(c.recogniser, context),
            filter=FilterChain([slots.FILTERS.build(s, context) for s in c.filter], filter_hash(c.filter)),
            batcher=slots.BATCHERS.build(c.batcher, context),
            initializer=slots.INITIALIZERS.build(c.initializer, context),
            trainer=slots.TRAINERS.build(c.trainer, context),
        )

    def score(self, cycle: int, student: Entry) -> dict[str, Any]:
        """Return what there is to report of a cycle."""
        folder = self.folder / "cycles" / f"{cycle:03d}"
        labels = label_report(folder / "decisions.parquet", self.corpora.truth)
        sets = {name: list(manifest) for name, manifest in self.corpora.tests.items()}
        if sets:
            self.progress.say(f"  scoring {student.name} on {', '.join(sets)}")
        cache = FeatureCache(self._cache, self.config.features)
        use_ray = self.connection is not None
        wer = score_student(student, sets, cache, use_ray, folder / "scores.jsonl") if sets else {}
        return {
            "cycle": cycle,
            **labels,
            "student": student.name,
            "dev_wer": student.metrics.get("dev_wer"),
            "wer": wer,
        }

    def announce(self, cycle: int) -> None:
        """Say that a cycle begins."""
        self.progress.say(f"cycle {cycle} (the last is {self.config.run.cycles - 1})")

    def report(self, report: dict[str, Any]) -> None:
        """Take in a cycle's report and say how it went."""
        self._reports.append(report)
        self._write(finished=False)
        for line in _lines(report):
            self.progress.say(f"  {line}")

    def finish(self) -> None:
        """Publish the report of the whole run."""
        self._write(finished=True)
        self.events.add("run finished", cycles=len(self._reports))

    def _write(self, finished: bool) -> None:
        write_json(self.folder / "report.json", {"finished": finished, "cycles": self._reports})

    def _context(self, cycle: int) -> CycleContext:
        c = self.config
        return CycleContext(
            cycle=cycle,
            first_cycle=c.first_cycle,
            folder=self.folder / "cycles" / f"{cycle:03d}",
            seed=c.run.seed,
            pool=self.pool,
            cache=self._cache,
            materials=self.materials,
            features=c.features,
            model=c.model,
            decode=c.decode,
            progress=self.progress,
            dev=self.corpora.dev,
        )

    @property
    def _cache(self) -> Path:
        return self.folder / "features"


def run_ipl(config_file: str | Path, overrides: Sequence[str] = (), quiet: bool = False) -> Path:
    """Start a run, or go on with it where it was stopped; return its folder.

    Raises:
        RaysrError: the configuration, a corpus, the cluster or a training is at fault, in one line.
    """
    config = read_config(config_file, list(overrides))
    with open_run(config, Progress(quiet), [Path(config_file).absolute().parent, Path.cwd()]) as run:
        from raysr.ipl.cycle import run_cycles

        run_cycles(run)
        return run.folder


@contextmanager
def open_run(
    config: RunConfig, progress: Progress, python_path: Sequence[Path] = (), use_ray: bool = True
) -> Iterator[Run]:
    """Own the run's folder, check its configuration, join the cluster, for as long as the block runs.

    Raises:
        CorpusError: the disk is full.
    """
    folder = place(config.run.dir)
    with naming_full_disk(folder), owning(folder):
        keep_config(folder, config.dump())
        run = Run(config, folder, progress)
        run.events.add("run started", python=sys.version.split()[0])
        if not use_ray:
            yield run
            return
        with connect(config.cluster, python_path) as connection:
            run.connection = connection
            if connection.dashboard_hint:
                progress.say(f"dashboard: {connection.dashboard_hint}")
            yield run


def _lines(report: dict[str, Any]) -> Iterator[str]:
    if report["offered"]:
        label = f", label WER {_percent(report['label_wer'])}" if report["label_wer"] is not None else ""
        yield (
            f"offered {report['offered_h']:.2f} h, kept {report['kept_h']:.2f} h ({report['kept']}), "
            f"filtered {report['filtered']}, failed {report['failed']}{label}"
        )
    for method, sets in report["wer"].items():
        yield f"WER {method}: " + ", ".join(f"{name} {_percent(wer)}" for name, wer in sets.items())


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"
