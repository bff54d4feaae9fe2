"""Tables of Hugging Face's: Parquet files and Arrow streams, read without ``datasets``, in order and in pieces."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysr.corpus.importers.source import Cell, locate
from raysr.errors import CorpusError

_ROWS = 256
_AUDIO_ROWS = 16
_ARROW = ".arrow"


@dataclass(frozen=True)
class Layout:
    """What the columns of a table are.

    Attributes:
        audio: the column that holds the audio, as ``{bytes, path}`` or as bytes alone.
        others: the other columns.
        names: of columns of class labels, number → name.
    """

    audio: str
    has_path: bool
    others: list[str]
    names: dict[str, list[str]] = field(default_factory=dict)


def layout(path: str) -> Layout:
    """Return what a table holds; raise :class:`CorpusError` when it is none, or has no audio."""
    schema = _schema(path)
    features = _features(schema)
    told = [name for name, feature in features.items() if feature.get("_type") == "Audio"]
    shaped = [column.name for column in schema if _holds_audio(column.type)]
    found = [name for name in [*told, *shaped] if name in schema.names and _is_audio(schema.field(name).type)]
    if not found:
        held = ", ".join(schema.names)
        raise CorpusError(f"{path}: has no column of audio ({{bytes, path}}); its columns are {held}")
    audio = "audio" if "audio" in found else found[0]
    names = {
        name: feature["names"]
        for name, feature in features.items()
        if feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list)
    }
    others = [column.name for column in schema if column.name != audio and not _is_audio(column.type)]
    return Layout(audio, pa.types.is_struct(schema.field(audio).type), others, names)


def rows(path: str, form: Layout) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table without the bytes of their audio; its path is under the audio's column."""
    columns = [*form.others, f"{form.audio}.path"] if form.has_path else form.others
    number = 0
    for batch in _batches(path, columns, form):
        for record in batch.to_pylist():
            audio = record.pop(form.audio, None)
            labels = {name: _label(names, record.get(name)) for name, names in form.names.items()}
            yield {**record, **labels, form.audio: audio["path"] if isinstance(audio, dict) else None}
            number += 1


class CellReader:
    """Reads the audio of cells; those of one table in order cost one pass, and memory for a few."""

    def __init__(self) -> None:
        self._table = ""
        self._first = 0
        self._values: Sequence[Any] = []
        self._batches: Iterator[tuple[int, Sequence[Any]]] = iter(())

    def read(self, cell: Cell) -> bytes | str:
        """Return the bytes of a cell, or where the file is that it names; raise :class:`CorpusError` otherwise."""
        try:
            value = self._find(cell)
        except (pa.ArrowException, OSError) as error:
            self._table = ""
            raise CorpusError(f"the table cannot be read ({str(error).splitlines()[0]})") from None
        if isinstance(value, dict):
            if value.get("bytes") is None and value.get("path"):
                return locate(value["path"], cell.table.rpartition("/")[0])
            value = value.get("bytes")
        if not isinstance(value, bytes):
            raise CorpusError("has neither bytes nor a path: it is null")
        return value

    def _find(self, cell: Cell) -> Any:
        if cell.table != self._table or cell.row < self._first:
            self._table, self._first, self._values = cell.table, 0, []
            self._batches = _audio_batches(cell)
        while cell.row >= self._first + len(self._values):
            found = next(self._batches, None)
            if found is None:
                raise CorpusError("the table ends before this row: it is damaged")
            self._first, self._values = found
        return self._values[cell.row - self._first]


def _audio_batches(cell: Cell) -> Iterator[tuple[int, Sequence[Any]]]:
    """Yield the audio of a table from the row group of ``cell`` on, each batch with the number of its first row."""
    if cell.table.endswith(_ARROW):
        first = 0
        for batch in _stream(cell.table):
            column = batch.column(batch.schema.names.index(cell.column))
            for start in range(0, len(column), _AUDIO_ROWS):
                piece = column.slice(start, _AUDIO_ROWS)
                yield first + start, _Lazy(piece)
            first += len(column)
        return
    with pq.ParquetFile(cell.table) as file:
        first = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if first + count > cell.row:
                start = first
                for batch in file.iter_batches(_AUDIO_ROWS, row_groups=[group], columns=[cell.column]):
                    yield start, _Lazy(batch.column(0))
                    start += len(batch)
            first += count


class _Lazy(Sequence[Any]):
    """An Arrow array whose values become Python's one by one."""

    def __init__(self, values: pa.Array) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: Any) -> Any:
        return self._values[index].as_py()


def _batches(path: str, columns: list[str], form: Layout) -> Iterator[pa.RecordBatch]:
    if path.endswith(_ARROW):
        for batch in _stream(path):
            plain = {name: batch.column(batch.schema.names.index(name)) for name in form.others}
            if form.has_path:
                audio = batch.column(batch.schema.names.index(form.audio))
                plain[form.audio] = pa.StructArray.from_arrays([audio.field("path")], ["path"])
            yield pa.RecordBatch.from_arrays(list(plain.values()), list(plain))
    else:
        with pq.ParquetFile(path) as file:
            if columns:
                yield from file.iter_batches(_ROWS, columns=columns)
            else:
                yield pa.RecordBatch.from_pylist([{"": None}] * file.metadata.num_rows)


def _stream(path: str) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(path) as file, pa.ipc.open_stream(file) as stream:
        yield from stream


def _schema(path: str) -> pa.Schema:
    try:
        if path.endswith(_ARROW):
            with pa.memory_map(path) as file:
                return pa.ipc.open_stream(file).schema
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CorpusError(f"{path}: no Parquet file or Arrow stream ({reason})") from None


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Return the features that ``datasets`` notes in a table's metadata; none when it did not write it."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    if not isinstance(features, dict):
        return {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def _holds_audio(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {"bytes", "path"} <= {
        kind.field(n).name for n in range(kind.num_fields)
    }


def _is_audio(kind: pa.DataType) -> bool:
    return _holds_audio(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _label(names: list[str], value: Any) -> Any:
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None
