"""Manifests: lists of utterances that are read while they are walked through, never held whole."""

import gzip
import hashlib
import io
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from raysr.corpus import places, shards
from raysr.corpus.disk import replacing
from raysr.corpus.load import content_identity
from raysr.corpus.records import from_record, to_record
from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError

JSONL, PARQUET = (".jsonl", ".json", ".jsonl.gz"), ".parquet"
_TRUTH = "truth.jsonl"


class Source(Protocol):
    """Where a manifest's utterances come from; walked through anew each time."""

    def __iter__(self) -> Iterator[Utterance]: ...

    def __len__(self) -> int: ...


class Manifest:
    """A list of utterances, lazily read; pickles as the place it is read from."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._length: int | None = None

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self._source)

    def __len__(self) -> int:
        if self._length is None:
            self._length = len(self._source)
        return self._length

    def __add__(self, other: "Manifest") -> "Manifest":
        """Return the utterances of both, one manifest after the other."""
        return Manifest(_Chain([self, other]))

    def ids(self) -> list[str]:
        """Return the ids in order; raise :class:`CorpusError` naming the first one that comes twice."""
        seen: dict[str, None] = {}
        for utterance in self:
            if utterance.id in seen:
                raise CorpusError(f"{utterance.audio}: the id '{utterance.id}' comes twice: ids must differ")
            seen[utterance.id] = None
        return list(seen)

    def filter(self, keep: Callable[[Utterance], bool]) -> "Manifest":
        """Return the utterances for which ``keep`` holds; nothing is read before it is walked through."""
        return Manifest(_Filtered(self._source, keep))

    def sample(self, count: int, seed: int = 0) -> "Manifest":
        """Return ``count`` utterances drawn without replacement (or all there are), in their order."""
        chosen = random.Random(seed).sample(range(len(self)), min(count, len(self)))
        return Manifest(_Picked(self._source, frozenset(chosen)))

    def fingerprint(self) -> str:
        """Return a hash of what the manifest holds: the same wherever it lies and in whatever order."""
        total = 0
        for utterance in self:
            record = {**to_record(utterance, "/"), "audio_filepath": content_identity(utterance), "row": None}
            digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).digest()
            total = (total + int.from_bytes(digest, "big")) % (1 << 256)
        return f"{total:064x}"


def open_manifest(path: str | Path | Sequence[str | Path | Utterance]) -> Manifest:
    """Open a JSONL file, a Parquet shard, a folder of shards, or a sequence of any of these or of utterances.

    Raises:
        CorpusError: there is nothing there that can be read as a manifest; names it and what would do.
    """
    if not isinstance(path, str | Path):
        utterances = [item for item in path if isinstance(item, Utterance)]
        if len(utterances) == len(path):
            return Manifest(utterances)
        return Manifest(_Chain([open_manifest([p] if isinstance(p, Utterance) else p) for p in path]))
    place = places.absolute(path)
    if places.is_folder(place):
        found = places.children(place, PARQUET)
        if not found:
            raise CorpusError(f"{place}: holds no Parquet shards{_below(place)}")
        return Manifest(_Shards(found))
    if not places.is_uri(place) and not os.path.exists(place):
        raise CorpusError(f"{place}: no such manifest")
    if place.endswith(PARQUET):
        return Manifest(_Shards([place]))
    if place.endswith(JSONL):
        return Manifest(_Jsonl(place))
    raise CorpusError(f"{place}: not a manifest: give a .jsonl file, a .parquet shard or a folder of shards")


def write_jsonl(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest, atomically; audio below its folder is named relative to it, so that both can move."""
    path = Path(os.path.abspath(path))
    with replacing(path) as file:
        for utterance in utterances:
            record = to_record(utterance, str(path.parent))
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def load_truth(path: str | Path) -> dict[str, str]:
    """Read transcripts kept apart from their audio, id → text: a ``truth.jsonl`` or the folder with it."""
    place = places.absolute(path)
    place = places.absolute(_TRUTH, place) if places.is_folder(place) else place
    truth: dict[str, str] = {}
    for where, record in read_json_lines(place):
        if not isinstance(record, dict) or not all(isinstance(record.get(k), str) for k in ("id", "text")):
            raise CorpusError(f'{where}: a line of truth looks like {{"id": "…", "text": "…"}}')
        if record["id"] in truth:
            raise CorpusError(f"{where}: the id '{record['id']}' comes twice")
        truth[record["id"]] = record["text"]
    return truth


def write_truth(path: str | Path, truth: Iterable[tuple[str, str]]) -> None:
    """Write transcripts apart from their audio, for scoring only."""
    with replacing(Path(path)) as file:
        for name, text in truth:
            file.write(json.dumps({"id": name, "text": text}, ensure_ascii=False).encode() + b"\n")


def read_json_lines(place: str) -> Iterator[tuple[str, Any]]:
    """Yield ``(file:line, value)`` of a JSONL file, gzipped or not; blank lines are passed over."""
    with places.open_binary(place) as raw:
        file = gzip.GzipFile(fileobj=raw) if place.endswith(".gz") else raw
        for number, line in enumerate(io.BufferedReader(file), start=1):  # type: ignore[type-var]
            if not line.strip():
                continue
            where = f"{place}:{number}"
            try:
                value = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError:
                raise CorpusError(f"{where}: not UTF-8 text") from None
            except json.JSONDecodeError as error:
                raise CorpusError(f"{where}: not JSON ({error.msg} at character {error.colno})") from None
            yield where, value


def _below(folder: str) -> str:
    """Return where shards do lie, when the folder's own folders hold them."""
    if not places.is_uri(folder):
        for path in sorted(Path(folder).glob("*/*.parquet")):
            return f"; did you mean {path.parent}?"
    return ": make some with `raysr data import`"


@dataclass(frozen=True)
class _Jsonl:
    path: str

    def __iter__(self) -> Iterator[Utterance]:
        folder = places.parent(self.path)
        return (from_record(record, folder, where) for where, record in read_json_lines(self.path))

    def __len__(self) -> int:
        return sum(1 for _ in read_json_lines(self.path))


@dataclass(frozen=True)
class _Shards:
    paths: list[str]

    def __iter__(self) -> Iterator[Utterance]:
        return (utterance for path in self.paths for utterance in shards.read_shard(path))

    def __len__(self) -> int:
        return sum(shards.count_rows(path) for path in self.paths)


@dataclass(frozen=True)
class _Chain:
    manifests: list[Manifest]

    def __iter__(self) -> Iterator[Utterance]:
        return (utterance for manifest in self.manifests for utterance in manifest)

    def __len__(self) -> int:
        return sum(len(manifest) for manifest in self.manifests)


@dataclass(frozen=True)
class _Filtered:
    source: Source
    keep: Callable[[Utterance], bool]

    def __iter__(self) -> Iterator[Utterance]:
        return filter(self.keep, self.source)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True)
class _Picked:
    source: Source
    positions: frozenset[int]

    def __iter__(self) -> Iterator[Utterance]:
        return (utterance for n, utterance in enumerate(self.source) if n in self.positions)

    def __len__(self) -> int:
        return len(self.positions)
