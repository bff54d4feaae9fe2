"""A corpus as an import leaves it, without what the import itself adds."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from raysr.corpus.importers.forms import open_source
from raysr.corpus.importers.options import ImportOptions
from raysr.corpus.importers.report import ImportReport
from raysr.corpus.importers.run import import_corpus
from raysr.corpus.manifest import open_manifest
from raysr.corpus.utterance import Utterance

ADDED = ("origin", "original_text")


def known(utterance: Utterance) -> dict[str, Any]:
    """Return what is known of an utterance, wherever its audio is."""
    custom = {key: value for key, value in utterance.custom.items() if key not in ADDED}
    names = ("duration", "text", "speaker", "language")
    return {**{n: getattr(utterance, n) for n in names}, "tags": dict(utterance.tags), "custom": custom}


def take(
    source: Path, out: Path, form: str = "auto", split: str | None = None, **options: Any
) -> ImportReport:
    """Import a corpus with one worker, transcripts as they are."""
    chosen = ImportOptions(**{"normalise_text": False, "any_script": True, "workers": 1} | options)
    return import_corpus(open_source(source, form, split=split), out, chosen)


def damage(shard: Path, kind: str) -> None:
    """Damage the first page of audio of a shard: its ``header``, its ``count`` of values, or its ``values``."""
    group = pq.ParquetFile(shard).metadata.row_group(0)
    columns = [group.column(n) for n in range(group.num_columns)]
    start = next(c.data_page_offset for c in columns if c.path_in_schema == "audio")
    data = bytearray(shard.read_bytes())
    count = (
        data.index(b"\x2c\x15", start) + 2
    )  # the data page header (field 5) and in it num_values (1), as thrift
    place, value = {"header": (start, 0xFF), "count": (count, 0), "values": (start + 24, 0xFF)}[kind]
    data[place] = value
    shard.write_bytes(data)


def imported(source: Path, out: Path, **options: Any) -> dict[str, dict[str, Any]]:
    """Import a corpus in which nothing is wrong, and return what is known of each utterance."""
    report = take(source, out, **options)
    assert report.problems == []
    place = next(iter(report.sets.values()))
    return {utterance.id: known(utterance) for utterance in open_manifest(place)}
