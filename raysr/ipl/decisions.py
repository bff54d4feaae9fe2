"""Decisions: what became of every selected utterance, exactly one each; small, and published whole."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from raysr.corpus.disk import replacing
from raysr.ipl.predictions import Prediction

Status = Literal["kept", "filtered", "failed"]
Rule = Callable[[Sequence[Prediction]], Mapping[str, str]]

_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("status", pa.string()),
        ("text", pa.string()),
        ("reason", pa.string()),
        ("score", pa.float64()),
        ("duration", pa.float64()),
        ("filter_hash", pa.string()),
        ("rule", pa.string()),
    ]
)


@dataclass(frozen=True)
class Decision:
    """The fate of one utterance.

    Attributes:
        id: of the utterance.
        status: ``kept`` is trained on; ``filtered`` has a label that a filter distrusts; ``failed`` has none.
        text: the pseudo-label; None when it failed.
        reason: why it was filtered or failed; None when it was kept.
        score: length-normalised score of the label, when its teacher gives one.
        duration: in seconds.
        filter_hash: of the filters that decided.
        rule: the name of the filter that filtered it.
    """

    id: str
    status: Status
    text: str | None
    reason: str | None
    score: float | None
    duration: float
    filter_hash: str
    rule: str | None = None


def decide(predictions: Iterable[Prediction], rules: Mapping[str, Rule], filter_hash: str) -> list[Decision]:
    """Pass predictions through the named rules in order, each seeing what the ones before it left."""
    everything = list(predictions)
    reasons = {p.id: p.failure for p in everything if p.failure is not None}
    failed, decided = set(reasons), dict[str, str]()
    for name, rule in rules.items():
        objections = rule([p for p in everything if p.id not in reasons])
        reasons |= objections
        decided |= dict.fromkeys(objections, name)
    return [
        _decision(p, p.id in failed, reasons.get(p.id), filter_hash, decided.get(p.id)) for p in everything
    ]


def _decision(
    prediction: Prediction, failed: bool, reason: str | None, filter_hash: str, rule: str | None
) -> Decision:
    label = prediction.label
    return Decision(
        id=prediction.id,
        status="failed" if failed else "filtered" if reason is not None else "kept",
        text=label.text if label else None,
        reason=reason,
        score=label.normalised_score if label else None,
        duration=prediction.duration,
        filter_hash=filter_hash,
        rule=rule,
    )


def one_each(
    selected: Iterable[tuple[str, float]], decisions: Iterable[Decision], filter_hash: str
) -> list[Decision]:
    """Return one decision for each selected (id, seconds), in that order; what has none has failed."""
    known: dict[str, Decision] = {}
    for decision in decisions:
        known.setdefault(decision.id, decision)
    return [
        known.get(name)
        or Decision(name, "failed", None, "no prediction was made", None, seconds, filter_hash)
        for name, seconds in dict(selected).items()
    ]


def write_decisions(path: Path, decisions: Iterable[Decision]) -> None:
    """Publish a cycle's decisions in one step."""
    with replacing(path) as file:
        pq.write_table(pa.Table.from_pylist([asdict(d) for d in decisions], _SCHEMA), file)


def read_decisions(path: Path) -> list[Decision]:
    """Read what :func:`write_decisions` wrote."""
    return [Decision(**row) for row in pq.read_table(path, schema=_SCHEMA).to_pylist()]
