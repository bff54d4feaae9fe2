"""A run: its folder, its parts, and what it tells the world."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

from raysr.cluster import Connection, connect
from raysr.config import Spec, folders
from raysr.corpus.disk import naming_full_disk
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import Manifest, open_manifest
from raysr.corpus.recordings import HeldOut
from raysr.ipl import plugins as slots
from raysr.ipl.canary import WithCanary, draw_canary
from raysr.ipl.carry import Carrying
from raysr.ipl.config import RunConfig, read_config
from raysr.ipl.context import CycleContext
from raysr.ipl.corpora import Corpora, open_corpora
from raysr.ipl.decisions import read_decisions
from raysr.ipl.distiller import CheckedBuilder, Distiller
from raysr.ipl.events import Events, resources
from raysr.ipl.filters.chain import FilterChain
from raysr.ipl.filters.hash import filter_hash
from raysr.ipl.filters.report import judge_filters
from raysr.ipl.folder import check_shared, keep_config, owning, place, store_of
from raysr.ipl.handover import write_json
from raysr.ipl.held_out import Protecting, count_held_out, look_for_held_out
from raysr.ipl.labels import characters_per_second, measure_labels
from raysr.ipl.ledger import Ledger
from raysr.ipl.materials import Materials
from raysr.ipl.plugins import Batcher, Builder, Initializer, Recogniser, Selector, Trainer
from raysr.ipl.progress import Progress
from raysr.ipl.report_lines import report_lines
from raysr.ipl.scoring import label_report, lineage, score_student
from raysr.ipl.segmentation import Segmentation
from raysr.ipl.steps import Steps
from raysr.ipl.stored import stored
from raysr.ipl.tracking.follower import followed
from raysr.ipl.tracking.trackers import FORGETFUL, trackers
from raysr.pool import Entry, Pool


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
    distiller: Distiller


class Run:
    """A run in its folder, which the caller owns (see :func:`raysr.ipl.folder.owning`).

    ``connection`` is to the cluster; without one everything is done here. ``keep`` is called at the end of a step.
    """

    def __init__(
        self, config: RunConfig, folder: Path, progress: Progress, keep: Callable[[], None] = lambda: None
    ) -> None:
        self.config, self.folder, self.progress = config, folder, progress
        self.connection: Connection | None = None
        self.events = Events(folder / "events.jsonl", keep)
        self.pool = Pool(folder / "pool")
        self.corpora: Corpora = open_corpora(config.data)
        self.materials = Materials(
            folder / "materials", config.tokenizer, config.lm, config.model, config.run.seed
        )
        self.ledger = Ledger(folder, self.pool, config.stop, self.events)

    @property
    def unlabelled(self) -> Manifest:
        """What may be labelled: long recordings as their segments, cut on first use."""
        use_ray = self.connection is not None
        segmentation = Segmentation(self.folder / "segments", self.config.segment, self.progress, use_ray)
        return segmentation(self.corpora.unlabelled)

    @property
    def labelled(self) -> Manifest | None:
        return self.corpora.labelled

    def look_for_held_out(self) -> None:
        """Say what of dev and tests is labelled or rehearsed too."""
        batchers = [self.config.at(cycle).batcher for cycle in range(self.config.run.cycles)]
        named = [b.options.get("rehearse") for b in batchers if b.kind in slots.BATCHERS.known]
        rehearsed = {str(places): open_manifest(places) for places in named if places}
        sets = {"data.labelled": self.labelled or (), "batcher.rehearse": chain(*rehearsed.values())}
        look_for_held_out(sets, self.held_out, self.folder, self.progress, self.events)

    def steps(self, cycle: int) -> Steps:
        """Return the steps of a cycle, done or not."""
        folder = self._folder(cycle)
        folder.mkdir(parents=True, exist_ok=True)
        return Steps(folder, cycle, self.events)

    def plugins(self, cycle: int) -> Plugins:
        """Build a cycle's plug-ins."""
        c, context = self.config.at(cycle), self.context(cycle)
        return Plugins(
            selector=Protecting(
                slots.SELECTORS.build(c.selector, context), self.held_out, context.folder, self.progress
            ),
            builder=CheckedBuilder(slots.BUILDERS.build(c.builder, context), context),
            recogniser=self._labelling(slots.RECOGNISERS.build(c.recogniser, context), c.relabel, context),
            filter=FilterChain.build(c.filter, context),
            batcher=slots.BATCHERS.build(c.batcher, context),
            initializer=slots.INITIALIZERS.build(c.initializer, context),
            trainer=slots.TRAINERS.build(c.trainer, context),
            distiller=self._distiller(c.recogniser, context),
        )

    def _distiller(self, recogniser: Spec, context: CycleContext) -> Distiller:
        actors = recogniser.options.get("actors", {})
        takes = (actors.get("cpus", 1.0), actors.get("gpus", 0.0))
        build = partial(slots.RECOGNISERS.build, recogniser)
        return Distiller(context, build, takes if self.connection is not None else None)

    def measure(self, cycle: int) -> dict[str, Any]:
        """Return the measures of a cycle's labels."""
        earlier = self.ledger.last_labelled()
        now, before = (
            read_decisions(self._folder(number) / "decisions.parquet") if number is not None else []
            for number in (cycle, earlier)
        )
        prior = characters_per_second(self.labelled or self.corpora.dev)
        canary = [
            (j.reference, j.prediction.label.text) for j in self.context(cycle).canary if j.prediction.label
        ]
        return {"cycle": cycle, **measure_labels(now, before, prior, canary)}

    def trust(self, labels: dict[str, Any]) -> None:
        """Go on with these labels; raise a :class:`RunError` if they show that the run has collapsed."""
        self.ledger.trust(labels)

    def is_over(self) -> bool:
        """Return whether the run gets no better."""
        return self.ledger.stop is not None

    def score(self, cycle: int, student: Entry) -> dict[str, Any]:
        """Return what there is to report of a cycle."""
        folder, config = self._folder(cycle), self.config.at(cycle)
        labels = label_report(folder / "decisions.parquet", self.corpora.truth)
        if labels["offered"]:
            judged = judge_filters(config.filter, self.context(cycle), self.corpora.truth or {})
            write_json(folder / "filters.json", judged)
        measures = json.loads((folder / "labels.json").read_text())
        sets = {name: list(manifest) for name, manifest in self.corpora.tests.items()}
        if sets:
            self.progress.say(f"  scoring {student.name} on {', '.join(sets)}")
        cache = FeatureCache(self._cache, self.config.features)
        use_ray = self.connection is not None
        wer = score_student(student, sets, cache, use_ray, folder / "scores.jsonl") if sets else {}
        return {
            **measures,
            **labels,
            "held_out": count_held_out(folder),
            "held_out_labelled": count_held_out(self.folder),
            "student": student.name,
            "dev_wer": student.metrics.get("dev_wer"),
            "wer": wer,
            "lineage": lineage(student, folder, filter_hash(config.filter, config.vote)),
        }

    def announce(self, cycle: int) -> None:
        """Say that a cycle begins, and note what the cluster has meanwhile."""
        self.events.add("cycle began", cycle=cycle, **resources())
        self.progress.say(f"cycle {cycle} (the last is {self.config.run.cycles - 1})")

    def report(self, report: dict[str, Any]) -> None:
        """Say how a cycle went and take in its report; raise a :class:`RunError` if the run has collapsed."""
        for line in report_lines(report):
            self.progress.say(f"  {line}")
        self.ledger.add(report)

    def finish(self) -> None:
        """Publish the report of the whole run, and say why it is over if it has not all its cycles."""
        self.ledger.write(finished=True)
        self.events.add("run finished", cycles=len(self.ledger.reports))
        if self.ledger.stop:
            self.progress.say(f"stopped after cycle {self.ledger.stop.cycle}: {self.ledger.stop.reason}")

    def _folder(self, cycle: int) -> Path:
        return self.folder / "cycles" / f"{cycle:03d}"

    @cached_property
    def held_out(self) -> HeldOut:
        """The audio of dev and tests."""
        sets = {"dev": self.corpora.dev, **{f"tests.{name}": m for name, m in self.corpora.tests.items()}}
        return HeldOut(sets, self.context(0).digests)

    @staticmethod
    def _labelling(recogniser: Recogniser, relabel: float, context: CycleContext) -> Recogniser:
        """Let a recogniser label the canary too, and carry over what is not to be labelled anew."""
        drawn = draw_canary(context.dev, context.canary_size, context.seed)
        carrying = Carrying(recogniser, relabel, context)
        return WithCanary(carrying, drawn, context.folder / "canary")

    def context(self, cycle: int) -> CycleContext:
        """Return what a cycle's plug-ins may know."""
        c = self.config.at(cycle)
        return CycleContext(
            cycle=cycle,
            first_cycle=c.first_cycle,
            folder=self._folder(cycle),
            seed=c.run.seed,
            pool=self.pool,
            cache=self._cache,
            materials=self.materials,
            features=c.features,
            model=c.model,
            decode=c.decode,
            progress=self.progress,
            dev=self.corpora.dev,
            labelled=self.corpora.labelled,
            canary_size=c.run.canary,
            vote=c.vote,
            stop=c.stop,
            distillation=c.distillation,
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
    with open_run(config, Progress(quiet), [*folders(Path(config_file)), Path.cwd()]) as run:
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
    uri = store_of(config.run.dir, config.run.store)
    with naming_full_disk(folder), owning(folder), stored(uri, folder, progress.say) as keep:
        told = trackers(config.run.tracking, folder, config.dump())
        keep_config(folder, config.dump())
        run = Run(config, folder, progress, keep)
        run.events.add("run started", python=sys.version.split()[0])
        if not use_ray:
            yield run
            return
        with (
            connect(config.cluster, python_path) as connection,
            followed(folder, told, progress.say, forgetful=FORGETFUL),
        ):
            run.connection = connection
            check_shared(folder)
            if connection.dashboard_hint:
                progress.say(f"dashboard: {connection.dashboard_hint}")
            yield run
