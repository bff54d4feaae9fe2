"""Parquet shards: utterances with their encoded audio inside, the form that scales.

Rows keep the bytes as they came (Ogg/Opus, FLAC, …). Row groups are small, so that one utterance can be
read without its whole shard; audio is neither compressed again nor given statistics, which would copy whole
recordings into the footer. The footer carries a hash of the content, by which caches know a shard wherever
it lies.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from raysr.corpus import places
from raysr.corpus.columns import REQUIRED, SCHEMA, from_row, to_row
from raysr.corpus.disk import replacing
from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError

_ROWS_PER_GROUP = 64
_BYTES_PER_GROUP = 32 << 20
_BYTES_PER_SHARD = 512 << 20
_BYTES_IN_CACHE = 4 * _BYTES_PER_GROUP
_FINGERPRINT = b"raysr.fingerprint"


class ShardWriter:
    """Writes utterances to numbered shards in ``folder``; a shard appears when it is whole.

    A block that fails leaves the finished shards and nothing of the one under way. Numbering goes on after
    the shards that are already there.
    """

    def __init__(self, folder: Path, rows_per_shard: int = 1024) -> None:
        self.folder = folder
        self.paths: list[Path] = []
        self._rows_per_shard = rows_per_shard
        self._number = 0
        if folder.is_dir():
            numbers = [path.stem.rpartition("-")[2] for path in folder.glob("shard-*.parquet")]
            self._number = max((int(n) + 1 for n in numbers if n.isdigit()), default=0)
        self._rows: list[dict[str, Any]] = []
        self._shard: _Shard | None = None

    def add(self, utterance: Utterance, audio: bytes) -> None:
        """Append an utterance with its encoded audio."""
        self._rows.append(to_row(utterance, audio))
        held = sum(len(row["audio"]) for row in self._rows)
        shard = self._shard or _Shard(self.folder / f"shard-{self._number:05d}.parquet")
        self._shard = shard
        full = shard.rows + len(self._rows) >= self._rows_per_shard or shard.bytes + held >= _BYTES_PER_SHARD
        if full or len(self._rows) >= _ROWS_PER_GROUP or held >= _BYTES_PER_GROUP:
            self._flush()
        if full:
            self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if self._shard is None:
            return
        if kind is not None:
            self._shard.abandon(kind, error, trace)
            return
        if self._rows:
            self._flush()
        self._finish()

    def _flush(self) -> None:
        assert self._shard is not None
        self._shard.write(self._rows)
        self._rows = []

    def _finish(self) -> None:
        assert self._shard is not None
        self._shard.close()
        self.paths.append(self._shard.path)
        self._shard = None
        self._number += 1


def write_shards(
    folder: str | Path, items: Iterable[tuple[Utterance, bytes]], rows_per_shard: int = 1024
) -> list[Path]:
    """Write utterances with their encoded audio as shards in ``folder`` and return the shards' paths.

    Raises:
        CorpusError: the disk is full; finished shards stay.
    """
    with ShardWriter(Path(folder), rows_per_shard) as writer:
        for utterance, audio in items:
            writer.add(utterance, audio)
    return writer.paths


def read_shard(path: str) -> Iterator[Utterance]:
    """Yield the utterances of a shard in order, without reading their audio."""
    metadata = _metadata(path, places.version(path))
    columns = [name for name in metadata.schema.to_arrow_schema().names if name != "audio"]
    row = 0
    with places.open_binary(path) as file:
        for batch in pq.ParquetFile(file, metadata=metadata).iter_batches(1024, columns=columns):
            for record in batch.to_pylist():
                yield from_row(record, path, row)
                row += 1


def count_rows(path: str) -> int:
    return _metadata(path, places.version(path)).num_rows


def fingerprint(path: str) -> str | None:
    """Return the hash of a shard's content that its writer left; None in a shard that raysr did not write."""
    value = (_metadata(path, places.version(path)).metadata or {}).get(_FINGERPRINT)
    return value.decode() if value else None


def read_audio(path: str, row: int) -> bytes:
    """Return the encoded audio of one row; the last few row groups stay in memory."""
    current = places.version(path)
    starts = _group_starts(path, current)
    if not 0 <= row < starts[-1]:
        raise CorpusError(f"{path}: has no row {row}; it holds {starts[-1]}")
    group = next(g for g, end in enumerate(starts[1:]) if row < end)
    audio: bytes = _audio_groups.get(path, current, group)[row - starts[group]].as_py()
    return audio


class _Shard:
    """One shard under way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self.bytes = 0
        self._hash = hashlib.sha256()
        self._stack = ExitStack()
        file = self._stack.enter_context(replacing(path))
        plain = [name for name in SCHEMA.names if name != "audio"]
        self._writer = pq.ParquetWriter(
            file,
            SCHEMA,
            compression={"audio": "none"} | dict.fromkeys(plain, "zstd"),
            use_dictionary=["speaker", "language"],
            write_statistics=["id", "duration"],
        )

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Write one row group."""
        for row in rows:
            for part in (row["id"].encode(), row["audio"]):
                self._hash.update(len(part).to_bytes(8, "little") + part)
            self.bytes += len(row["audio"])
        self.rows += len(rows)
        try:
            self._writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
        except OSError as error:
            self.abandon(type(error), error, error.__traceback__)
            raise

    def close(self) -> None:
        self._writer.add_key_value_metadata({_FINGERPRINT: self._hash.hexdigest().encode()})
        try:
            self._writer.close()
        except OSError as error:
            self.abandon(type(error), error, error.__traceback__)
            raise
        self._stack.close()

    def abandon(self, kind: type[BaseException], error: BaseException | None, trace: Any) -> None:
        """Remove what was written; the error goes on, as a full disk's own where it was one."""
        self._writer.is_open = False  # or its destructor would write a footer to the closed file
        self._stack.__exit__(kind, error, trace)


@lru_cache(maxsize=256)
def _metadata(path: str, version: tuple[int, int]) -> pq.FileMetaData:
    with places.open_binary(path) as file:
        try:
            metadata = pq.read_metadata(file)
        except (pa.ArrowInvalid, OSError) as error:
            reason = str(error).splitlines()[0]
            raise CorpusError(f"{path}: not a whole Parquet file ({reason})") from error
    missing = REQUIRED - set(metadata.schema.to_arrow_schema().names)
    if missing:
        raise CorpusError(f"{path}: not a shard of utterances; it lacks the column '{min(missing)}'")
    return metadata


@lru_cache(maxsize=256)
def _group_starts(path: str, version: tuple[int, int]) -> list[int]:
    metadata = _metadata(path, version)
    starts = [0]
    for group in range(metadata.num_row_groups):
        starts.append(starts[-1] + metadata.row_group(group).num_rows)
    return starts


class _GroupCache:
    """The audio of the row groups read last; of rows that are hours long only one."""

    def __init__(self) -> None:
        self._groups: OrderedDict[tuple[str, tuple[int, int], int], pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: str, version: tuple[int, int], group: int) -> pa.ChunkedArray:
        key = (path, version, group)
        with self._lock:
            if key in self._groups:
                self._groups.move_to_end(key)
                return self._groups[key]
        with places.open_binary(path) as file:
            table = pq.ParquetFile(file, metadata=_metadata(path, version)).read_row_group(group, ["audio"])
        audio = table.column("audio")
        with self._lock:
            self._groups[key] = audio
            while len(self._groups) > 1 and sum(a.nbytes for a in self._groups.values()) > _BYTES_IN_CACHE:
                self._groups.popitem(last=False)
        return audio


_audio_groups = _GroupCache()
