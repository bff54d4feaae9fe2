"""Labelling on a cluster: Ray Data streams blocks into an elastic pool of actors that hold the teachers.

A list of blocks → (tasks: decoding and features →) actors: transcribing and writing → a report for every block. What
runs between the stages is bounded by Ray Data's back-pressure, a block by ``block_seconds``. No row is ever dropped:
whatever happens to an utterance is in its prediction.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from raysr.audio.fbank import FbankConfig
from raysr.cluster import data_context, root_cause
from raysr.config import Config as Options
from raysr.config import Spec
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import Manifest
from raysr.errors import RunError
from raysr.ipl.labelling import block_rows
from raysr.ipl.labelling.block_rows import read_report, report_row
from raysr.ipl.labelling.inputs import Needs, Reader, needs_of_specs
from raysr.ipl.labelling.labeller import BlockReport, Labeller, Labelling
from raysr.ipl.labelling.metrics import LabellingMetrics, pool_watch
from raysr.ipl.labelling.recogniser import LocalRecogniser, RecogniserConfig
from raysr.teachers.base import patience_of

START_UP_S = 120.0
"""For a process and its teachers, on a node that is cold."""


class RayRecogniser(LocalRecogniser):
    """Labels on an elastic pool of Ray Data actors, each with teachers of its own."""

    class Config(RecogniserConfig):
        """How the work is spread.

        Attributes:
            actors: how many, and what each takes of the cluster. The pool grows to ``max`` while blocks wait and
                the cluster has room, and shrinks when a node goes.
            features: who decodes and computes features. ``actor``: the teachers' own process, best where it is a
                CPU that would wait all the same; ``tasks``: tasks of their own, one CPU each, so that a GPU never
                waits for a decoder; ``auto``: tasks if actors have GPUs.
            timeout: seconds that one utterance may take to be read, and to be transcribed by one teacher; it is longer
                where a teacher says that it may take longer by itself (:func:`~raysr.teachers.base.patience_of`).
        """

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
        features: Literal["auto", "actor", "tasks"] = "auto"
        timeout: float = Field(default=60.0, gt=0)

    config: Config

    def _label(self, missing: Manifest, teachers: Sequence[Spec], count: int) -> Iterator[BlockReport]:
        import ray.data
        import ray.exceptions
        from ray.data.exceptions import ExecutionTimeoutError

        c = self.config
        todo = self.context.folder / "todo.parquet"
        block_rows.write_todo(todo, self._blocks(missing))
        timeout = max(c.timeout, *map(patience_of, teachers))
        labelling = self._labelling(teachers, timeout)
        # what killed an earlier driver's workers is not held against anybody
        shutil.rmtree(self.attempts, ignore_errors=True)
        metrics = LabellingMetrics(self.context.pool.root.parent.name, self.context.cycle, count)
        patience = self._patience(len(teachers), timeout)
        data_context(patience, [pool_watch(metrics)])
        try:
            for row in self._pipeline(str(todo), labelling, teachers).iter_rows():
                report, latency = read_report(row)
                metrics.block(report, latency)
                yield report
        except ray.exceptions.RayError as error:
            raise RunError(
                f"labelling failed: {root_cause(error)}; start again to go on from here"
            ) from error
        except ExecutionTimeoutError as error:
            raise RunError(
                f"labelling failed: no block came to its end in {patience:.0f} s and more (`ray status` says "
                "whether the cluster has room); start again to go on from here"
            ) from error
        finally:
            metrics.finish()
        todo.unlink()

    def _patience(self, teachers: int, timeout: float) -> float:
        """Return the seconds that a block may take which runs into every time-out: as a whole, then one by one."""
        c = self.config
        return (1 + teachers) * c.block * timeout + (c.retries + 1) * (timeout + START_UP_S)

    def _pipeline(self, todo: str, labelling: Labelling, teachers: Sequence[Spec]) -> Any:
        """Return the dataset whose rows are reports, one for each row of ``todo``."""
        import ray.data

        c = self.config
        rows = ray.data.read_parquet(todo, num_cpus=0.25).repartition(target_num_rows_per_block=1)
        if c.features == "tasks" or (c.features == "auto" and c.actors.gpus):
            rows = rows.map_batches(
                ReadTask(labelling, needs_of_specs(teachers)),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=1,
                max_retries=-1,  # the attempts are counted by utterance; it also keeps the two stages apart
            )
        return rows.map_batches(
            LabelActor,
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=c.actors.min, max_size=c.actors.max),
            fn_constructor_args=(labelling,),
            num_cpus=c.actors.cpus,
            num_gpus=c.actors.gpus or None,
        )


class ReadTask:
    """Decodes a block and computes its features, as Ray Data calls it: a row of utterances in, one of inputs out."""

    def __init__(self, labelling: Labelling, needs: Needs) -> None:
        self.labelling, self.needs = labelling, needs

    def __call__(self, batch: pa.Table) -> pa.Table:
        utterances = block_rows.utterances(batch)
        labelling = self.labelling
        cache = _kept(labelling.cache.folder.parent, labelling.cache.config)
        reader = Reader(self.needs, cache, labelling.longest, labelling.retries)
        with labelling.attempts("read").at([u.id for u in utterances]) as attempt:
            return block_rows.inputs_row(reader(utterances, attempt))


@lru_cache(maxsize=1)
def _kept(folder: Path, config: FbankConfig) -> FeatureCache:
    """Return a cache that keeps its index from task to task: Ray Data unpickles what it calls for each."""
    return FeatureCache(folder, config)


class LabelActor:
    """A :class:`Labeller` as Ray Data calls it: a block in, its predictions written, a report out."""

    def __init__(self, labelling: Labelling) -> None:
        self.labeller = Labeller(labelling)

    def __call__(self, batch: pa.Table) -> pa.Table:
        started = time.monotonic()
        if block_rows.has_inputs(batch):
            report = self.labeller.label(block_rows.inputs(batch))
        else:
            report = self.labeller(block_rows.utterances(batch))
        return report_row(report, time.monotonic() - started)
