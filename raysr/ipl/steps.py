"""The steps of one cycle on disk: each is done once, and read back when the run is started again."""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from raysr.config import Spec
from raysr.corpus.manifest import Manifest, open_manifest, write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.errors import PoolError
from raysr.ipl.context import student_name
from raysr.ipl.decisions import Decision, one_each, read_decisions, write_decisions
from raysr.ipl.earlier import labelled
from raysr.ipl.events import Events
from raysr.ipl.handover import (
    Batches,
    Start,
    read_batches,
    read_start,
    relative,
    write_batches,
    write_json,
    write_start,
)
from raysr.ipl.predictions import Predictions
from raysr.ipl.weights import LABEL_SCORE
from raysr.pool import Entry, Pool

log = logging.getLogger(__name__)
T = TypeVar("T")


class Steps:
    """One cycle's folder. Every method takes what makes a step, and calls it if the step is not there."""

    def __init__(self, folder: Path, cycle: int, events: Events) -> None:
        self.folder, self.cycle, self._events = folder, cycle, events

    def selection(self, make: Callable[[], Iterable[Utterance]]) -> Manifest:
        """Write the selected utterances to ``selection.jsonl``."""
        path = self.folder / "selection.jsonl"
        if not path.exists():
            with self._events.step(self.cycle, "selection"):
                chosen = open_manifest(list({u.id: u for u in make()}.values()))
                write_jsonl(path, chosen)
        return open_manifest(path)

    def teachers(self, make: Callable[[], Sequence[Spec]]) -> list[Spec]:
        """Write the teachers to ``teachers.json``: a resumed cycle labels with the ones it began with.

        That there are none holds once the cycle has done without; until then they are asked for again.
        """
        path = self.folder / "teachers.json"
        known = json.loads(path.read_text()) if path.exists() else None
        if known is None or (not known and labelled(self.folder) is None):
            with self._events.step(self.cycle, "teachers"):
                known = [spec.model_dump(mode="json") for spec in make()]
                write_json(path, known)
        return [Spec(**spec) for spec in known]

    def predictions(self, make: Callable[[], Predictions]) -> Predictions:
        """Label into ``predictions/``; ``predictions.json`` says that everything is there, and how it is voted on."""
        found = labelled(self.folder)
        if found is None:
            with self._events.step(self.cycle, "predictions"):
                found = make()
                said = {
                    "utterances": len(found.ids()),
                    "folder": relative(found.folder, self.folder),
                    "vote": found.vote.dump(),
                }
                write_json(self.folder / "predictions.json", said)
        return found

    def decisions(self, selected: Manifest, make: Callable[[], Iterable[Decision]]) -> list[Utterance]:
        """Write one decision for each selected utterance, and return the kept ones with their labels and scores."""
        path = self.folder / "decisions.parquet"
        if not path.exists():
            with self._events.step(self.cycle, "decisions"):
                made = list(make())
                used = made[0].filter_hash if made else ""
                write_decisions(path, one_each(((u.id, u.duration) for u in selected), made, used))
        kept = {d.id: d for d in read_decisions(path) if d.status == "kept"}
        return [_with_label(u, kept[u.id]) for u in selected if u.id in kept]

    def labels(self, make: Callable[[], dict]) -> dict:
        """Measure the labels into ``labels.json``."""
        return self._once("labels", make, write_json, _read_json)

    def batches(self, make: Callable[[], Batches]) -> Batches:
        """Write what the student is trained on to ``batches.json``."""
        return self._once("batches", make, write_batches, read_batches)

    def start(self, make: Callable[[], Start]) -> Start:
        """Write where the student starts to ``start.json``."""
        return self._once("start", make, write_start, read_start)

    def student(self, pool: Pool, make: Callable[[], Entry]) -> Entry:
        """Train the student, unless the pool has it whole."""
        name = student_name(self.cycle)
        try:
            return pool.get(name).verify()
        except PoolError as error:
            log.debug("training %s: %s", name, error)
        with self._events.step(self.cycle, "student"):
            return make()

    def report(self, make: Callable[[], dict]) -> dict:
        """Score the cycle into ``report.json``."""
        return self._once("report", make, write_json, _read_json)

    def _once(
        self, name: str, make: Callable[[], T], write: Callable[[Path, T], None], read: Callable[[Path], T]
    ) -> T:
        path = self.folder / f"{name}.json"
        if not path.exists():
            with self._events.step(self.cycle, name):
                write(path, make())
        return read(path)


def _read_json(path: Path) -> dict:
    return dict(json.loads(path.read_text()))


def _with_label(utterance: Utterance, decision: Decision) -> Utterance:
    score = {} if decision.score is None else {LABEL_SCORE: decision.score}
    return replace(utterance, text=decision.text, custom={**utterance.custom, **score})
