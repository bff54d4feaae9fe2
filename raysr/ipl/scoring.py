"""A cycle's report: the student on the test sets, and the pseudo-labels against the hidden truth."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raysr.cluster import root_cause
from raysr.corpus.disk import replacing
from raysr.corpus.features import FeatureCache
from raysr.corpus.utterance import Utterance
from raysr.errors import RunError
from raysr.evaluate.evaluate import METHODS, Method, Scores, label_counts, score_part
from raysr.ipl.decisions import read_decisions
from raysr.pool import Entry, Pool, load_entry

PART = 200  # utterances a task scores: small enough to share, large enough to be worth loading the model


@dataclass(frozen=True)
class Part:
    """Some utterances of a set, to be scored by one method."""

    name: str
    method: Method
    utterances: list[Utterance]


Scored = Iterator[tuple[Part, Scores]]


def score_student(
    entry: Entry, sets: Mapping[str, Sequence[Utterance]], cache: FeatureCache, use_ray: bool, rows: Path
) -> dict[str, dict[str, float | None]]:
    """Return ``{method: {set: WER}}`` and write a row for every utterance to ``rows``."""
    readable = {name: _readable(utterances, cache) for name, utterances in sets.items()}
    parts = [
        Part(name, method, utterances[first : first + PART])
        for method in METHODS
        for name, utterances in readable.items()
        for first in range(0, len(utterances), PART)
    ]
    totals: dict[Method, dict[str, Scores]] = {
        method: {name: Scores() for name in readable} for method in METHODS
    }
    scored = _on_ray(entry, parts, cache) if use_ray and parts else _here(entry, parts, cache)
    for part, scores in scored:
        totals[part.method][part.name] += scores
    _write_rows(rows, totals)
    return {method: {name: scores.wer for name, scores in found.items()} for method, found in totals.items()}


def label_report(decisions: Path, truth: Mapping[str, str] | None) -> dict[str, Any]:
    """Count what became of the selected utterances, in hours and utterances, and the WER of their labels."""
    rows = read_decisions(decisions)
    hours = {s: sum(d.duration for d in rows if d.status == s) / 3600 for s in ("kept", "filtered", "failed")}
    counts = {s: sum(d.status == s for d in rows) for s in ("kept", "filtered", "failed")}
    report: dict[str, Any] = {
        "offered_h": sum(hours.values()),
        "offered": len(rows),
        **{f"{status}_h": value for status, value in hours.items()},
        **counts,
        "label_wer": None,
    }
    if truth:
        errors = label_counts(rows, truth)
        report |= {"label_wer": errors["kept"].rate if "kept" in errors else None}
        report |= {"filtered_label_wer": errors["filtered"].rate if "filtered" in errors else None}
    return report


def lineage(student: Entry, folder: Path, filters: str) -> dict[str, Any]:
    """Return what a student came of: the hashes of its weights and its teachers', its parents, its filters' hash."""
    path = folder / "teachers.json"
    specs = json.loads(path.read_text()) if path.exists() else []
    return {
        "weights": student.weights_hash,
        "parents": list(student.metrics.get("parents", ())),
        "teachers": [_described(spec) for spec in specs],
        "filters": filters,
    }


def _described(teacher: dict[str, Any]) -> dict[str, Any]:
    entries = [Path(path) for path in teacher.get("entries", ())]
    weights = [Pool(path.parent).get(path.name).weights_hash for path in entries]
    return {**teacher, **({"weights": weights} if weights else {})}


def _readable(utterances: Sequence[Utterance], cache: FeatureCache) -> list[Utterance]:
    errors = cache.ensure(utterances, workers=os.cpu_count() or 1)
    return [u for u in utterances if u.text is not None and u.id not in errors]


def _here(entry: Entry, parts: Sequence[Part], cache: FeatureCache) -> Scored:
    if not parts:
        return
    recogniser = load_entry(entry)
    for part in parts:
        yield part, score_part(recogniser, part.utterances, cache, part.method)


def _on_ray(entry: Entry, parts: Sequence[Part], cache: FeatureCache) -> Scored:
    import ray
    import ray.exceptions

    task = ray.remote(num_cpus=1, max_retries=3)(_score)
    tasks: dict[Any, Part] = {task.remote(entry, part, cache): part for part in parts}
    waiting = list(tasks)
    while waiting:
        done, waiting = ray.wait(waiting)
        for reference in done:
            try:
                yield tasks[reference], ray.get(reference)
            except ray.exceptions.RayError as error:
                raise RunError(
                    f"scoring {entry.name} failed: {root_cause(error)}; start again to go on"
                ) from error


def _score(entry: Entry, part: Part, cache: FeatureCache) -> Scores:
    torch.set_num_threads(1)
    return score_part(load_entry(entry), part.utterances, cache, part.method)


def _write_rows(path: Path, totals: Mapping[Method, Mapping[str, Scores]]) -> None:
    rows: list[dict[str, Any]] = [
        {
            "id": row.id,
            "set": name,
            "method": method,
            "errors": row.words.errors,
            "words": row.words.reference,
            "reference": row.reference,
            "hypothesis": row.hypothesis,
        }
        for method, sets in totals.items()
        for name, scores in sets.items()
        for row in scores.rows
    ]
    with replacing(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
