"""Hugging Face data sets: Parquet files, folders that ``save_to_disk`` wrote, and names of the hub.

Only names of the hub need ``datasets``; the rest is read with pyarrow. Audio is never decoded by ``datasets``.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from raysr.corpus.importers.report import Problem
from raysr.corpus.importers.source import Cell, Entry, Recording, Segment, transcript_of
from raysr.corpus.importers.tables import layout, rows
from raysr.errors import CorpusError

_ID = ("id", "utterance_id", "segment_id")
_TEXT = ("text", "transcription", "transcript", "sentence", "normalized_text", "raw_text")
_SPEAKER = ("speaker", "speaker_id", "client_id")
_LANGUAGE = ("language", "lang", "locale")
_NUMBERED = re.compile(r"[-_.]\d+(-of-\d+)?(-[0-9a-f]+)?$")


class HuggingFaceSource:
    """A data set: a Parquet file, a folder of them, a folder of ``save_to_disk``, or ``owner/name`` on the hub.

    The audio is the column that is told to be (or is shaped) ``Audio``. Ids are the column ``id``, else table and
    row; texts, speakers and languages are found by their columns' usual names; all other columns that JSON can
    hold go to ``custom``. Class labels become their names.

    Args:
        place: where it is; ``owner/name:config`` names a configuration on the hub.
        split: of several, which; such as ``train``.
        leave_out: files and folders below a folder that are none of it.

    Raises:
        CorpusError: nothing there, no audio in it, or several splits and none chosen.
    """

    form = "huggingface"

    def __init__(self, place: str | Path, split: str | None = None, leave_out: tuple[Path, ...] = ()) -> None:
        path = Path(place)
        self.ignored: Mapping[str, int] = {}
        if path.exists():
            self._folder = path.absolute() if path.is_dir() else path.absolute().parent
            self._tables = _choose(str(place), _splits(path.absolute(), leave_out), split)
        else:
            self._tables = _from_hub(str(place), split)
            self._folder = Path(self._tables[0]).parent
        self.place = str(path.absolute() if path.exists() else place) + (f"[{split}]" if split else "")
        for table in self._tables[:1]:
            layout(table)

    def __iter__(self) -> Iterator[Entry | Problem]:
        for table in self._tables:
            name = os.path.relpath(table, self._folder)
            try:
                yield from self._entries(table, name)
            except (CorpusError, OSError, ValueError) as error:
                reason = str(error).removeprefix(f"{table}: ").splitlines()[0]
                yield Problem("unreadable table", name, reason)

    def _entries(self, table: str, name: str) -> Iterator[Entry | Problem]:
        form = layout(table)
        for row, record in enumerate(rows(table, form)):
            where = f"{name}[{row}]"
            path = record.pop(form.audio)
            identity = _take(record, _ID) or f"{Path(name).with_suffix('').as_posix()}-{row:06d}"
            tags = _object(record.get("tags"))
            if tags is not None:
                del record["tags"]
            segment = Segment(
                identity,
                where,
                transcript=transcript_of(_take(record, _TEXT), where),
                speaker=_take(record, _SPEAKER),
                language=_take(record, _LANGUAGE),
                tags={key: str(value) for key, value in (tags or {}).items()},
                custom=_custom(record),
            )
            yield Recording(Cell(table, row, form.audio), path or where, identity), segment


def tables(folder: Path, leave_out: tuple[Path, ...]) -> Iterator[Path]:
    """Yield the Parquet files below ``folder``, but for those in ``leave_out``."""
    avoid = {path.resolve() for path in leave_out}
    for table in folder.rglob("*.parquet"):
        if avoid.isdisjoint((table.resolve(), *table.resolve().parents)):
            yield table


def _splits(path: Path, leave_out: tuple[Path, ...]) -> dict[str, list[str]]:
    """Return the tables below ``path`` by split."""
    if path.is_file():
        return {"": [str(path)]}
    if (path / "dataset_dict.json").is_file():
        named = _json(path / "dataset_dict.json").get("splits") or []
        return {str(split): _saved(path / str(split)) for split in named}
    if (path / "state.json").is_file():
        return {"": _saved(path)}
    found: dict[str, list[str]] = defaultdict(list)
    for table in sorted(tables(path, leave_out)):
        *folders, stem = table.relative_to(path).with_suffix("").parts
        name = _NUMBERED.sub("", stem)
        parts = [*(folder for folder in folders if folder != "data"), *([] if name.isdigit() else [name])]
        found["/".join(parts)].append(str(table))
    return found


def _saved(folder: Path) -> list[str]:
    files = _json(folder / "state.json").get("_data_files") or []
    return [str(folder / file["filename"]) for file in files]


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path}: not as `save_to_disk` writes it ({error})") from None
    return value if isinstance(value, dict) else {}


def _choose(place: str, splits: dict[str, list[str]], split: str | None) -> list[str]:
    if not any(splits.values()):
        raise CorpusError(f"{place}: holds no table: give a Parquet file, or a folder with a data set")
    if split is None and len(splits) == 1:
        return next(iter(splits.values()))
    if split not in splits:
        held = ", ".join(sorted(splits))
        raise CorpusError(f"{place}: holds the splits {held}: choose one with --split")
    return splits[split]


def _from_hub(name: str, split: str | None) -> list[str]:
    """Return the Arrow files that ``datasets`` has made of a data set of the hub, or has in its cache."""
    try:
        from datasets import DatasetDict, load_dataset
    except ImportError:
        raise CorpusError(
            f"{name}: no such file or folder; to load it from the Hugging Face hub: pip install datasets"
        ) from None
    identity, _, config = name.partition(":")
    try:
        found = load_dataset(identity, config or None, split=split)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CorpusError(
            f"{name}: no such file or folder, and not to be had from the hub ({reason})"
        ) from None
    splits = found if isinstance(found, DatasetDict) else {"": found}
    files = {key: [file["filename"] for file in part.cache_files] for key, part in splits.items()}
    return _choose(name, files, None if split else split)


def _take(record: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    """Remove the first of ``keys`` that has a string or a number, and return that as a string."""
    for key in keys:
        value = record.get(key)
        if isinstance(value, str | int) and value != "":
            return str(record.pop(key))
    return None


def _object(value: Any) -> dict[str, Any] | None:
    """Return the JSON object that a string holds, or a struct; None when it is neither."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, dict) else None


def _custom(record: dict[str, Any]) -> dict[str, Any]:
    own = _object(record.get("custom"))
    if own is not None:
        del record["custom"]
    return {key: plain for key, value in record.items() if (plain := _plain(value)) is not None} | (own or {})


def _plain(value: Any) -> Any:
    """Return what JSON can hold of a value; None for the rest."""
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, str | int | bool) else None
