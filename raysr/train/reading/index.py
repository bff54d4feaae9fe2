"""Which segments of the feature cache hold a corpus, kept up to date while other processes write more of them."""

import os
import threading
import time
from collections.abc import Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from raysr.corpus.segments import SUFFIX, Segment

REFRESH_S = 60.0
"""How often a feature that is not there is looked for anew."""


class _Place(NamedTuple):
    path: Path
    segment: Segment
    row: int


class SegmentIndex:
    """Where the features of a corpus lie in the segments of some folders; for many threads.

    Only segments that hold something of the corpus stay mapped; their time of change becomes now, which says when
    they were last used. A segment that is removed can be read until the next refresh, which lets go of it.

    Args:
        folders: of segments; they need not exist yet.
        corpus: the keys that will be asked for.
    """

    def __init__(self, folders: Sequence[Path], corpus: Set[bytes]) -> None:
        self._folders, self._corpus = folders, corpus
        self._used: dict[Path, float] = {}
        self._places: dict[bytes, _Place] = {}
        self._lock = threading.Lock()
        self.refresh()

    def find(self, key: bytes) -> np.ndarray | None:
        """Return features (T, mel_bins) float16 as a view of their file, or None where there are none."""
        if key not in self._places and time.monotonic() - self._refreshed > REFRESH_S:
            self.refresh()
        place = self._places.get(key)
        return None if place is None else place.segment.features(place.row)

    def used(self, path: Path) -> float:
        """Return the share of a segment's frames that are of the corpus; 1 for one that is not known yet."""
        return self._used.get(path, 1.0)

    def refresh(self) -> None:
        """Take in segments that were written, and let go of those that were removed."""
        with self._lock:
            self._refreshed = time.monotonic()
            paths = {path for folder in self._folders for path in folder.glob(f"[!.]*{SUFFIX}")}
            if gone := self._used.keys() - paths:
                self._used = {path: used for path, used in self._used.items() if path not in gone}
                self._places = {key: p for key, p in self._places.items() if p.path not in gone}
            for path in sorted(paths - self._used.keys()):
                self._take_in(path)

    def _take_in(self, path: Path) -> None:
        try:
            segment = Segment(path)
        except (pa.ArrowInvalid, OSError):
            self._used[path] = 0.0  # damaged, or removed meanwhile
            return
        rows = [row for row, key in enumerate(segment.keys) if key in self._corpus]
        self._used[path] = float(segment.frames[rows].sum() / segment.frames.sum())
        self._places.update((segment.keys[row], _Place(path, segment, row)) for row in rows)
        if rows:
            with suppress(OSError):  # another user's file, or one that is just being removed
                os.utime(path)
