"""A folder of segments that holds no more than so many bytes, however many processes write to it."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from raysr.corpus.disk import exclusive
from raysr.corpus.segments import SUFFIX, write_segment

ABANDONED_S = 3600.0
"""No segment takes so long to write: an unfinished one of this age is that of a process that died."""


class BoundedFolder:
    """Segments in the folders below ``root``, of at most ``max_bytes`` together, those being written apart.

    Where there is no room, segments that nobody needs are removed, those used longest ago first. What is needed is
    never removed for something else that is: in epochs of random order the longest unused is what comes next. Of a
    corpus of which a share x fits, replacing it would find x + (1 - x) ln(1 - x), 15 % for a half; what came first,
    left alone, is found x of the time (so does the cache of Mohan et al., VLDB 2021, arXiv:2007.06775).
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root, self.max_bytes = root, max_bytes

    def publish(
        self,
        path: Path,
        keys: Sequence[bytes],
        features: Sequence[np.ndarray],
        bins: int,
        needless: Callable[[Path], bool],
    ) -> bool:
        """Write a segment of features (T, bins), whole or not at all; return whether there was room for it.

        The lock of ``root`` is held while room is made, and not while features are written.

        Args:
            path: of the segment, in a folder below ``root``.
            keys: of its rows.
            features: of its rows.
            bins: a frame's features.
            needless: says which segments may be removed.

        Raises:
            CorpusError: the disk is full, or the folder cannot be written.
        """
        unpublished = path.with_name(f".{path.name}")
        write_segment(unpublished, keys, features, bins)
        try:
            with exclusive(self.root, wait=True):
                if not self._make_room(unpublished.stat().st_size, needless):
                    return False
                unpublished.rename(path)
                return True
        finally:
            unpublished.unlink(missing_ok=True)

    def _make_room(self, size: int, needless: Callable[[Path], bool]) -> bool:
        """Remove what is needless until ``size`` bytes more fit; nothing if they cannot."""
        published = self._published()
        excess = sum(status.st_size for status in published.values()) + size - self.max_bytes
        removable = sorted(filter(needless, published), key=lambda path: published[path].st_mtime)
        if excess > sum(published[path].st_size for path in removable):
            return False
        for path in removable:
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= published[path].st_size
        return True

    def _published(self) -> dict[Path, os.stat_result]:
        """Return every finished segment; remove the unfinished ones of writers that died."""
        found: dict[Path, os.stat_result] = {}
        for path in self.root.rglob(f"*{SUFFIX}*"):
            with suppress(FileNotFoundError):
                status = path.stat()
                if path.name[0] != ".":
                    found[path] = status
                elif time.time() - status.st_mtime > ABANDONED_S:
                    path.unlink()
        return found
