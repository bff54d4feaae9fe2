"""Segments of the feature cache: Arrow IPC files, written once and read by memory mapping.

A row holds a key (16 bytes), and frames × bins values as one list. float16 halves the disk and the page
cache; it is exact to 0.008 below 32, where log-mel values lie (on telephone prompts its error is 0.0035
RMS, theirs spread 4.3).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from raysr.corpus.disk import replacing

SUFFIX = ".arrow"


class Segment:
    """A finished segment, memory-mapped.

    Attributes:
        keys: of its rows.
        frames: of each row, (rows,) int64.
    """

    def __init__(self, path: Path) -> None:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all().combine_chunks()
        values = table.column("features").chunk(0)
        self._bins = int(table.schema.metadata[b"bins"])
        self._values = values.values.to_numpy(zero_copy_only=True)
        self._offsets = values.offsets.to_numpy(zero_copy_only=True)
        self.keys: list[bytes] = table.column("key").to_pylist()
        self.frames = np.diff(self._offsets) // self._bins

    def features(self, row: int) -> np.ndarray:
        """Return one row as a read-only view of the file, (T, bins) float16."""
        values = self._values[self._offsets[row] : self._offsets[row + 1]]
        view: np.ndarray = values.reshape(-1, self._bins)  # (T, bins)
        return view


def write_segment(path: Path, keys: Sequence[bytes], features: Sequence[np.ndarray], bins: int) -> None:
    """Write a segment that appears whole or not at all; ``features`` are (T, bins) each.

    Raises:
        CorpusError: the disk is full.
    """
    offsets = np.concatenate([[0], np.cumsum([part.size for part in features])]).astype(np.int64)
    values = np.concatenate([part.astype(np.float16).reshape(-1) for part in features])
    batch = pa.record_batch(
        {
            "key": pa.array(keys, pa.binary(16)),
            "features": pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values)),
        }
    )
    schema = batch.schema.with_metadata({"bins": str(bins)})
    with replacing(path) as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(batch.replace_schema_metadata(schema.metadata))
