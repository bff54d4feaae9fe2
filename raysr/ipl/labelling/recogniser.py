"""Labelling what is selected and has no prediction yet, in this process; ``ray_recogniser`` does it on a cluster."""

import os
import shutil
import time
from collections.abc import Iterator, Sequence

from pydantic import Field

from raysr.config import Config as Options
from raysr.config import Spec
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import Manifest
from raysr.corpus.utterance import Utterance
from raysr.errors import RunError
from raysr.ipl.context import CycleContext
from raysr.ipl.labelling.blocks import blocks
from raysr.ipl.labelling.labeller import BlockReport, Labeller, Labelling
from raysr.ipl.predictions import Predictions
from raysr.ipl.voting import Vote
from raysr.teachers.base import TEACHERS


class RecogniserConfig(Options):
    """What both recognisers take.

    Attributes:
        block: utterances labelled and written at once: the most that a crash costs.
        block_seconds: of audio in a block, each utterance counted as long as the longest in it. It bounds the
            memory of a worker, and of what is under way between workers.
        bucket: blocks' worth of neighbours that are sorted by length together.
        longest: seconds; a longer utterance fails with the advice to cut it.
        vote: how what several teachers say becomes one label.
        precompute: fill the feature cache first if a teacher reads it; training needs it anyway.
        retries: how often an utterance is tried again whose teacher raised, whose process died, or that took
            longer than ``timeout``; after that it has failed.
    """

    block: int = Field(default=32, ge=1)
    block_seconds: float = Field(default=600.0, gt=0)
    bucket: int = Field(default=8, ge=1)
    longest: float = Field(default=120.0, gt=0)
    vote: Vote = Vote()
    precompute: bool = True
    retries: int = Field(default=2, ge=0)


class LocalRecogniser:
    """Labels in this process. A teacher that takes it down is known to the next start, and found out in a few."""

    Config = RecogniserConfig

    def __init__(self, config: RecogniserConfig, context: CycleContext) -> None:
        self.config, self.context = config, context
        self.out = context.folder / "predictions"
        self.attempts = context.folder / "attempts"

    def __call__(self, selected: Manifest, teachers: Sequence[Spec]) -> Predictions:
        predictions = Predictions(self.out, self.config.vote)
        predictions.discard_broken()
        done = predictions.ids()
        total = len(selected)
        if total > len(done):
            _check(teachers, total)
            missing = selected.filter(lambda u: u.id not in done)
            self._precompute(missing, teachers)
            self._label_all(missing, teachers, len(done), total)
        shutil.rmtree(self.attempts, ignore_errors=True)
        return predictions

    def _label_all(self, missing: Manifest, teachers: Sequence[Spec], done: int, total: int) -> None:
        label = "labelling" if not done else f"labelling (going on after {done})"
        started = time.monotonic()
        so_far = BlockReport()
        with self.context.progress.track(label, total) as update:
            for report in self._label(missing, teachers, total - done):
                so_far += report
                update(done + so_far.utterances, _note(so_far, time.monotonic() - started))

    def _label(self, missing: Manifest, teachers: Sequence[Spec], count: int) -> Iterator[BlockReport]:
        """Label ``count`` utterances, and report every block when it is written."""
        labeller = Labeller(self._labelling(teachers))
        labeller.attempts.recall()  # what is missing is cut into other blocks than before
        for block in self._blocks(missing):
            yield labeller(block)

    def _blocks(self, missing: Manifest) -> Iterator[list[Utterance]]:
        c = self.config
        return blocks(missing, c.block, c.block_seconds, c.bucket)

    def _labelling(self, teachers: Sequence[Spec], timeout: float | None = None) -> Labelling:
        c = self.context
        cache = FeatureCache(c.cache, c.features)
        longest, retries = self.config.longest, self.config.retries
        return Labelling(list(teachers), c.cycle, self.out, cache, longest, retries, timeout)

    def _precompute(self, missing: Manifest, teachers: Sequence[Spec]) -> None:
        if not self.config.precompute or not any(spec.kind == "pool_model" for spec in teachers):
            return
        cache = FeatureCache(self.context.cache, self.context.features)
        readable = missing.filter(lambda u: u.duration <= self.config.longest)
        with self.context.progress.track("features", len(readable)) as update:
            cache.ensure(readable, workers=os.cpu_count() or 1, progress=lambda done, _: update(done, ""))


def _note(so_far: BlockReport, elapsed: float) -> str:
    """Return what the progress line says beside the count."""
    failures = ", ".join(f"{count} {kind}" for kind, count in sorted(so_far.failures.items()))
    told = f"{so_far.seconds / 3600:.2f} h, {so_far.seconds / max(1e-3, elapsed):.0f}x real time"
    return told + (f", failed: {failures}" if failures else "")


def _check(teachers: Sequence[Spec], total: int) -> None:
    for spec in teachers:
        TEACHERS.check(spec)
    if not teachers:
        raise RunError(
            f"{total} utterances are selected and there is no teacher: the pool is empty. Train on "
            "labelled audio first (selector.first_cycle: 1), or bring teachers (builder: {kind: external})"
        )
