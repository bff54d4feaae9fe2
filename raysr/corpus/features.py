"""The feature cache: log-mel features of a corpus, computed once, on disk, read by memory mapping.

Known by content (see :func:`raysr.corpus.load.content_hash`) and by the fbank's configuration, so that
corpora may share a cache and a changed recording is computed anew. Segments appear whole or not at all: a
crash loses the segments under way and nothing else.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from raysr.audio.fbank import FbankConfig
from raysr.corpus.disk import exclusive, remove_partials, replacing
from raysr.corpus.extract import ExtractTask, extract
from raysr.corpus.load import content_hash
from raysr.corpus.segments import SUFFIX, Segment
from raysr.corpus.utterance import Utterance
from raysr.corpus.workers import WorkerDied, run_in_workers
from raysr.errors import CorpusError, RaysrError

VERSION = 1  # of decoding, mixing and fbank together: raise it when any of them changes its output
_TASKS_PER_WORKER = 8
_TASK_SECONDS = (60.0, 1800.0)


class FeatureCache:
    """Features of utterances, (T, mel_bins) float32 each; pickles as its folder and configuration."""

    def __init__(self, folder: str | Path, config: FbankConfig | None = None) -> None:
        self.config = config or FbankConfig()
        recipe = json.dumps([VERSION, self.config.dump()], sort_keys=True)
        self.folder = Path(folder).absolute() / hashlib.sha256(recipe.encode()).hexdigest()[:12]
        self._recipe = recipe
        self._forget()

    def ensure(
        self,
        utterances: Iterable[Utterance],
        workers: int = 1,
        on_error: Callable[[str, str], None] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, str]:
        """Compute what is missing, with ``workers`` processes of one thread each (1: in this process).

        A second process that ensures meanwhile waits, then finds the features there.

        Args:
            utterances: any number of them; those already computed cost a look-up.
            workers: how many processes compute.
            on_error: told the id and the reason of each utterance without features.
            progress: told how many of how many utterances are done.

        Returns:
            id → reason of the utterances whose audio could not be read.

        Raises:
            CorpusError: the disk is full; what is finished is kept.
        """
        errors: dict[str, str] = {}

        def fail(found: dict[str, str]) -> None:
            errors.update(found)
            if on_error:
                for name, reason in found.items():
                    on_error(name, reason)

        with exclusive(self.folder, wait=True):
            remove_partials(self.folder)
            self._describe()
            self.refresh()
            missing, total = self._missing(utterances, fail)
            done = total - len(missing)
            if progress:
                progress(done, total)
            for task, found in _run(_tasks(missing, self.folder, self.config, workers), workers):
                fail(found)
                done += len(task.utterances)
                if progress:
                    progress(done, total)
        self.refresh()
        return errors

    def get(self, utterance: Utterance) -> Tensor:
        """Return the features of an utterance, (T, mel_bins) float32.

        Raises:
            CorpusError: they have not been computed.
        """
        segment, row = self._find(utterance)
        return torch.from_numpy(segment.features(row).astype(np.float32))  # (T, mel_bins)

    def frames(self, utterance: Utterance) -> int:
        """Return how many frames an utterance has, without reading them; raises as :meth:`get`."""
        segment, row = self._find(utterance)
        return int(segment.frames[row])

    def __contains__(self, utterance: Utterance) -> bool:
        return self._place(utterance) is not None

    def refresh(self) -> None:
        """Take in the segments that other processes have finished."""
        for path in sorted(self.folder.glob(f"[!.]*{SUFFIX}")):
            if path.name in self._known:
                continue
            self._known.add(path.name)
            try:
                segment = Segment(path)
            except (pa.ArrowInvalid, OSError):
                continue  # damaged on disk: its utterances count as missing and are computed again
            self._places.update((key, (segment, row)) for row, key in enumerate(segment.keys))

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config, "folder": self.folder, "_recipe": self._recipe}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._known: set[str] = set()
        self._places: dict[bytes, tuple[Segment, int]] = {}

    def _describe(self) -> None:
        """Leave the recipe beside the segments, for people."""
        path = self.folder / "features.json"
        if not path.exists():
            with replacing(path) as file:
                file.write(self._recipe.encode() + b"\n")

    def _find(self, utterance: Utterance) -> tuple[Segment, int]:
        place = self._place(utterance)
        if place is None:
            raise CorpusError(f"utterance {utterance.id}: no features in {self.folder}: run ensure first")
        return place

    def _place(self, utterance: Utterance) -> tuple[Segment, int] | None:
        key = cache_key(utterance)
        if key not in self._places:
            self.refresh()
        return self._places.get(key)

    def _missing(
        self, utterances: Iterable[Utterance], fail: Callable[[dict[str, str]], None]
    ) -> tuple[dict[bytes, Utterance], int]:
        missing: dict[bytes, Utterance] = {}
        present = set()
        for utterance in utterances:
            try:
                key = cache_key(utterance)
            except RaysrError as error:
                fail({utterance.id: f"utterance {utterance.id}: {error}"})
                continue
            if key in self._places:
                present.add(key)
            else:
                missing[key] = utterance
        return missing, len(present) + len(missing)


def cache_key(utterance: Utterance) -> bytes:
    """Return what a cache knows an utterance by: 16 bytes of its content's hash.

    Raises:
        CorpusError: its audio is not there; OSError where its disk does not answer.
    """
    return bytes.fromhex(content_hash(utterance))[:16]


def _tasks(
    missing: dict[bytes, Utterance], folder: Path, config: FbankConfig, workers: int
) -> list[ExtractTask]:
    """Cut the work into pieces small enough to share and report, large enough for few segments."""
    total = sum(utterance.duration for utterance in missing.values())
    least, most = _TASK_SECONDS
    size = min(most, max(least, total / max(1, workers) / _TASKS_PER_WORKER))
    tasks: list[ExtractTask] = []
    seconds = size
    for item in missing.items():
        if seconds >= size:
            tasks.append(ExtractTask([], folder, config))
            seconds = 0.0
        tasks[-1].utterances.append(item)
        seconds += item[1].duration
    return tasks


def _run(tasks: list[ExtractTask], workers: int) -> Iterator[tuple[ExtractTask, dict[str, str]]]:
    """Yield each task with its errors; a task that kills its worker is halved until the culprit is alone."""
    if workers <= 1 or len(tasks) <= 1:
        yield from ((task, extract(task)) for task in tasks)
        return
    while tasks:
        again: list[ExtractTask] = []
        for task, outcome in run_in_workers(extract, tasks, workers):
            if not isinstance(outcome, WorkerDied):
                yield task, outcome
            elif len(task.utterances) > 1:
                again += task.halves()
            else:
                name = task.utterances[0][1].id
                yield task, {name: f"utterance {name}: reading it crashed or ran out of memory: leave it out"}
        tasks = again
