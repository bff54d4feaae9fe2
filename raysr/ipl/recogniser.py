"""Recognisers: label what is selected and has no prediction yet, here or on the cluster's actors."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from raysr.cluster import data_context, root_cause
from raysr.config import Config as Options
from raysr.config import Spec
from raysr.corpus.disk import replacing
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import Manifest
from raysr.corpus.records import from_record, to_record
from raysr.corpus.utterance import Utterance
from raysr.errors import RunError
from raysr.ipl.context import CycleContext
from raysr.ipl.labeller import Labeller
from raysr.ipl.predictions import Prediction, Predictions
from raysr.ipl.voting import Vote
from raysr.teachers.base import TEACHERS

T = TypeVar("T")
PENDING_SCHEMA = pa.schema([("utterance", pa.string())])
ROWS_AT_ONCE = 1024


class RecogniserConfig(Options):
    """What both recognisers take.

    Attributes:
        block: utterances labelled and written at once: the most that a crash costs.
        longest: seconds; a longer utterance fails with the advice to cut it.
        vote: how what several teachers say becomes one label.
        precompute: fill the feature cache first if a teacher reads it; training needs it anyway.
    """

    block: int = Field(default=32, ge=1)
    longest: float = Field(default=120.0, gt=0)
    vote: Vote = Vote()
    precompute: bool = True


class LocalRecogniser:
    """Labels in this process."""

    Config = RecogniserConfig

    def __init__(self, config: RecogniserConfig, context: CycleContext) -> None:
        self.config, self.context = config, context
        self.out = context.folder / "predictions"

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
        return predictions

    def _label_all(self, missing: Manifest, teachers: Sequence[Spec], done: int, total: int) -> None:
        label = "labelling" if not done else f"labelling (going on after {done})"
        seconds, failed, started = 0.0, 0, time.monotonic()
        with self.context.progress.track(label, total) as update:
            for count, audio_seconds, failures in self._label(missing, teachers):
                done, seconds, failed = done + count, seconds + audio_seconds, failed + failures
                speed = seconds / max(1e-3, time.monotonic() - started)
                update(
                    done,
                    f"{seconds / 3600:.2f} h, {speed:.0f}x real time"
                    + (f", {failed} failed" if failed else ""),
                )

    def _label(self, missing: Manifest, teachers: Sequence[Spec]) -> Iterator[tuple[int, float, int]]:
        """Label and yield (utterances, seconds, failures) of every block."""
        labeller = Labeller(*self._labeller_arguments(teachers))
        for block in _blocks(missing, self.config.block):
            yield _summary(labeller(block))

    def _labeller_arguments(self, teachers: Sequence[Spec]) -> tuple[Any, ...]:
        c = self.context
        return list(teachers), c.cycle, self.out, FeatureCache(c.cache, c.features), self.config.longest

    def _precompute(self, missing: Manifest, teachers: Sequence[Spec]) -> None:
        if not self.config.precompute or not any(spec.kind == "pool_model" for spec in teachers):
            return
        cache = FeatureCache(self.context.cache, self.context.features)
        readable = missing.filter(lambda u: u.duration <= self.config.longest)
        with self.context.progress.track("features", len(readable)) as update:
            cache.ensure(readable, workers=os.cpu_count() or 1, progress=lambda done, _: update(done, ""))


class RayRecogniser(LocalRecogniser):
    """Labels on an elastic pool of Ray Data actors, each with teachers of its own."""

    class Config(RecogniserConfig):
        """``actors``: how many, and what each takes of the cluster."""

        class Actors(Options):
            min: int = Field(default=1, ge=1)
            max: int = Field(default=2, ge=1)
            cpus: float = Field(default=1.0, gt=0)
            gpus: float = Field(default=0.0, ge=0)

            @model_validator(mode="after")
            def _ordered(self) -> "RayRecogniser.Config.Actors":
                if self.max < self.min:
                    raise ValueError(f"max ({self.max}) lies below min ({self.min})")
                return self

        actors: Actors = Actors()

    config: Config

    def _label(self, missing: Manifest, teachers: Sequence[Spec]) -> Iterator[tuple[int, float, int]]:
        import ray.data
        import ray.exceptions

        todo = self.context.folder / "todo.parquet"
        _write_todo(todo, missing)
        data_context()
        actors = self.config.actors
        blocks = (
            ray.data.read_parquet(str(todo), num_cpus=0.25)
            .repartition(target_num_rows_per_block=self.config.block)
            .map_batches(
                LabelActor,
                batch_size=self.config.block,
                compute=ray.data.ActorPoolStrategy(min_size=actors.min, max_size=actors.max),
                fn_constructor_args=self._labeller_arguments(teachers),
                num_cpus=actors.cpus,
                num_gpus=actors.gpus or None,
            )
        )
        try:
            for row in blocks.iter_rows():
                yield row["utterances"], row["seconds"], row["failed"]
        except ray.exceptions.RayError as error:
            raise RunError(
                f"labelling failed: {root_cause(error)}; start again to go on from here"
            ) from error
        todo.unlink()


class LabelActor:
    """A :class:`Labeller` as Ray Data calls it: utterances in, predictions written, a summary out."""

    def __init__(self, *arguments: Any) -> None:
        self.labeller = Labeller(*arguments)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        utterances = [from_record(json.loads(line), "/", "todo") for line in batch["utterance"]]
        count, seconds, failed = _summary(self.labeller(utterances))
        return {"utterances": np.array([count]), "seconds": np.array([seconds]), "failed": np.array([failed])}


def _summary(rows: Sequence[Prediction]) -> tuple[int, float, int]:
    return len(rows), sum(row.duration for row in rows), sum(row.failure is not None for row in rows)


def _write_todo(path: Path, utterances: Iterable[Utterance]) -> None:
    lines = (json.dumps(to_record(u, "/") | {"audio_filepath": u.audio}) for u in utterances)
    with replacing(path) as file, pq.ParquetWriter(file, PENDING_SCHEMA) as writer:
        for block in _blocks(lines, ROWS_AT_ONCE):
            writer.write_table(pa.table({"utterance": block}, PENDING_SCHEMA))


def _blocks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    block: list[T] = []
    for item in items:
        block.append(item)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def _check(teachers: Sequence[Spec], total: int) -> None:
    for spec in teachers:
        TEACHERS.check(spec)
    if not teachers:
        raise RunError(
            f"{total} utterances are selected and there is no teacher: the pool is empty. Train on "
            "labelled audio first (selector.first_cycle: 1), or bring teachers (builder: {kind: external})"
        )
