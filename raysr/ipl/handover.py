"""What the plug-ins hand over to each other, besides manifests, predictions and decisions."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from raysr.corpus.disk import replacing
from raysr.corpus.manifest import open_manifest
from raysr.corpus.utterance import Utterance

MANIFESTS = ("labelled", "pseudo", "rehearsal")


@dataclass(frozen=True)
class Batches:
    """What a student is trained on: manifests with final texts, and how they are mixed.

    Attributes:
        labelled, pseudo: JSONL manifests; None where there is nothing of the kind. The ``loss_weight`` of an
            utterance is what its loss counts, 1 where it has none.
        labelled_share: of every batch's seconds, when there are both.
        rehearsal: a manifest of labelled speech from elsewhere. It is trained on as if it were labelled, but the
            language model learns nothing from it.
        temperature: mix by it instead of ``labelled_share``: see :func:`raysr.train.sampler.temperature_shares`.
        by: the tag whose values are sources of their own then.
    """

    labelled: Path | None
    pseudo: Path | None
    labelled_share: float = 0.3
    rehearsal: Path | None = None
    temperature: float | None = None
    by: str | None = None

    def utterances(self) -> Iterator[Utterance]:
        """Yield all that is trained on: labelled, pseudo-labelled, rehearsed."""
        for name in MANIFESTS:
            manifest = getattr(self, name)
            if manifest is not None:
                yield from open_manifest(manifest)


@dataclass(frozen=True)
class Start:
    """Where a student starts.

    Attributes:
        weights: a safetensors file; None draws them.
        parents: the pool entries that they come from.
        tokeniser: the model file of the tokens that they are for; None if those are the run's.
    """

    weights: Path | None = None
    parents: tuple[str, ...] = ()
    tokeniser: Path | None = None


def write_json(path: Path, value: object) -> None:
    """Write a JSON file in one step."""
    with replacing(path) as file:
        file.write(json.dumps(value, indent=2).encode() + b"\n")


def write_batches(path: Path, batches: Batches) -> None:
    """Publish batches; paths below the file's folder are written relative to it, so that a run can move."""
    manifests = {name: relative(getattr(batches, name), path.parent) for name in MANIFESTS}
    write_json(path, asdict(batches) | manifests)


def read_batches(path: Path) -> Batches:
    """Read what :func:`write_batches` wrote."""
    record = json.loads(path.read_text())
    manifests = {name: _absolute(record.get(name), path.parent) for name in MANIFESTS}
    return Batches(**record | manifests)


def write_start(path: Path, start: Start) -> None:
    """Publish where a student starts."""
    files = {name: relative(getattr(start, name), path.parent) for name in ("weights", "tokeniser")}
    write_json(path, {**files, "parents": start.parents})


def read_start(path: Path) -> Start:
    """Read what :func:`write_start` wrote."""
    record = json.loads(path.read_text())
    weights, tokeniser = (_absolute(record.get(name), path.parent) for name in ("weights", "tokeniser"))
    return Start(weights, tuple(record["parents"]), tokeniser)


def relative(path: Path | None, folder: Path) -> str | None:
    """Return a path as a file in ``folder`` names it: what lies below moves with it."""
    if path is None:
        return None
    inside = path.is_relative_to(folder)
    return str(path.relative_to(folder) if inside else path.absolute())


def _absolute(path: str | None, folder: Path) -> Path | None:
    return None if path is None else folder / path
