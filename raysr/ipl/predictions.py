"""Predictions: what the teachers said about every selected utterance; written once, a Parquet file a block.

A block's file is named after the ids in it and appears whole or not at all, so that a block which is labelled
twice, because a worker died or the driver did, is still there once.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raysr.config import Spec
from raysr.corpus.disk import remove_partials, replacing
from raysr.ipl.voting import NEAREST, Vote
from raysr.teachers.base import TEACHERS, Teacher, TeacherOutput

_SCORED_TEXT = pa.struct([("text", pa.string()), ("score", pa.float64())])
_HYPOTHESIS = pa.struct(
    [
        ("teacher", pa.string()),
        ("version", pa.string()),
        ("text", pa.string()),
        ("tokens", pa.list_(pa.int32())),
        ("score", pa.float64()),
        ("normalised_score", pa.float64()),
        ("ctc", pa.float64()),
        ("attention", pa.float64()),
        ("lm", pa.float64()),
        ("confidences", pa.list_(pa.float32())),
        ("word_confidences", pa.list_(pa.float32())),
        ("nbest", pa.list_(_SCORED_TEXT)),
        ("ctc_attention_agreement", pa.float64()),
        ("text_without_lm", pa.string()),
        ("ended", pa.bool_()),
        ("error", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("cycle", pa.int32()),
        ("duration", pa.float64()),
        ("hypotheses", pa.list_(_HYPOTHESIS)),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True)
class TeacherHypothesis:
    """What one teacher said; ``version`` is the hash of its weights, or its release."""

    teacher: str
    version: str
    output: TeacherOutput


@dataclass(frozen=True)
class Prediction:
    """One selected utterance with what every teacher said, in the teachers' order; or why there is nothing.

    ``duration`` is in seconds; ``error`` says why the audio could not be read; ``vote`` makes the label.
    """

    id: str
    cycle: int
    duration: float
    hypotheses: tuple[TeacherHypothesis, ...] = ()
    error: str | None = None
    vote: Vote = NEAREST

    @cached_property
    def label(self) -> TeacherOutput | None:
        """The output that becomes the pseudo-label, by vote of the teachers that did not fail."""
        return self.vote.elect(self.answers, len(self.hypotheses))

    @cached_property
    def scale(self) -> str:
        """What the label's score can be compared with: labels of the same teacher, of any student, of the same vote.

        Empty is the scale of a vote that gave the label its score.
        """
        whose = next((h for h in self.hypotheses if h.output is self.label), None)
        if whose is None:
            return ""
        of_ours = whose.output.ctc is not None or whose.output.attention is not None
        return "students" if of_ours else f"{whose.teacher} {whose.version}"

    @property
    def answers(self) -> list[TeacherOutput]:
        """The outputs of the teachers that did not fail, in their order."""
        return [h.output for h in self.hypotheses if h.output.error is None]

    @property
    def failure(self) -> str | None:
        """Why there is no label; None when there is one."""
        if self.error is not None:
            return self.error
        if self.answers:
            return None
        return "; ".join(f"{h.teacher}: {h.output.error}" for h in self.hypotheses) or "no teacher answered"


class Predictions:
    """A cycle's predictions: a folder of Parquet files. Iterates in the order of the ids.

    ``vote`` is how their labels are made: it is no part of the files, so that it may change without labelling again.
    """

    def __init__(self, folder: str | Path, vote: Vote = NEAREST) -> None:
        self.folder = Path(folder)
        self.vote = vote

    def write(self, predictions: Sequence[Prediction]) -> None:
        """Write one block; the same ids again replace it."""
        table = pa.Table.from_pylist([_to_row(p) for p in predictions], SCHEMA)
        with replacing(self._path([p.id for p in predictions])) as file:
            pq.write_table(table, file)

    def record(self, teachers: Sequence[Teacher], specs: Sequence[Spec]) -> None:
        """Write to ``teachers.json`` who labels: names, versions, and the settings that they were built with."""
        rows = [
            {
                "teacher": teacher.name,
                "version": teacher.version,
                "settings": TEACHERS.check(spec).model_dump(),
            }
            for teacher, spec in zip(teachers, specs, strict=True)
        ]
        with replacing(self.folder / "teachers.json") as file:
            file.write(json.dumps(rows, indent=2, ensure_ascii=False).encode())

    def block(self, names: Sequence[str]) -> list[Prediction] | None:
        """Return what was written as one block of these ids, in this order; None if nothing was."""
        path = self._path(names)
        return self._read(path) if path.exists() and _is_readable(path) else None

    def discard_broken(self) -> int:
        """Remove what a killed writer left and what cannot be read; return how many files."""
        if not self.folder.is_dir():
            return 0
        remove_partials(self.folder)
        broken = [path for path in self._files() if not _is_readable(path)]
        for path in broken:
            path.unlink()
        return len(broken)

    def move(self, ids: Collection[str], other: "Predictions") -> None:
        """Take the rows of ``ids`` over to other predictions; killed on the way, it can be done again.

        A block that also holds other rows gives way to one of these alone.
        """
        for path in self._files():
            rows = self._read(path)
            leaving = [row for row in rows if row.id in ids]
            if not leaving:
                continue
            other.write(leaving)
            if len(leaving) < len(rows):
                self.write([row for row in rows if row.id not in ids])
            path.unlink()

    def ids(self) -> set[str]:
        """Return the ids that have a row."""
        return {
            name for path in self._files() for name in pq.read_table(path, columns=["id"])["id"].to_pylist()
        }

    def __iter__(self) -> Iterator[Prediction]:
        rows: dict[str, Prediction] = {}
        for path in self._files():
            for row in self._read(path):
                rows.setdefault(row.id, row)
        return iter([rows[name] for name in sorted(rows)])

    def _read(self, path: Path) -> list[Prediction]:
        """Read a block; what an older one lacks is not known of its teachers."""
        return [_from_row(row, self.vote) for row in pq.read_table(path).to_pylist()]

    def _path(self, names: Sequence[str]) -> Path:
        key = hashlib.sha256("\n".join(names).encode()).hexdigest()[:24]
        return self.folder / f"{key}.parquet"

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[!.]*.parquet"))


def _is_readable(path: Path) -> bool:
    """Return whether a file is whole and has the columns it should; teachers may have said less in earlier days."""
    try:
        return set(pq.read_schema(path).names) == set(SCHEMA.names)
    except (OSError, pa.ArrowInvalid):
        return False


def _to_row(prediction: Prediction) -> dict[str, object]:
    return {
        "id": prediction.id,
        "cycle": prediction.cycle,
        "duration": prediction.duration,
        "error": prediction.error,
        "hypotheses": [
            {"teacher": h.teacher, "version": h.version}
            | asdict(h.output)
            | {"nbest": [{"text": text, "score": score} for text, score in h.output.nbest]}
            for h in prediction.hypotheses
        ],
    }


def _from_row(row: dict[str, object], vote: Vote) -> Prediction:
    hypotheses: list[dict] = row.pop("hypotheses")  # type: ignore[assignment]
    return Prediction(
        **row,  # type: ignore[arg-type]
        hypotheses=tuple(TeacherHypothesis(h["teacher"], h["version"], _output(h)) for h in hypotheses),
        vote=vote,
    )


def _output(row: dict) -> TeacherOutput:
    known = {field.name: row[field.name] for field in fields(TeacherOutput) if field.name in row}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}
    return TeacherOutput(**values | {"nbest": tuple((n["text"], n["score"]) for n in row["nbest"])})
