"""A feature cache that fills while a training reads it: each utterance is computed once, by whichever rank is first.

It has the form of :class:`~raysr.corpus.features.FeatureCache` and lies beside it, in a folder of its own, since the
two promise different things: what was ensured stays, what was filled in on the fly is bounded. Features that were
ensured are read, and neither counted nor removed.
"""

import threading
import uuid
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from raysr.corpus.features import FeatureCache, cache_key
from raysr.corpus.segments import SUFFIX
from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError, RaysrError
from raysr.train.reading.index import SegmentIndex
from raysr.train.reading.reader import FeatureReader, audio_of
from raysr.train.reading.room import BoundedFolder

ON_THE_FLY = "on-the-fly"
SEGMENT_BYTES = 16 << 20
"""Seventeen minutes of audio at 80 mel bins: what a process that is killed loses at most."""
WORTH_KEEPING = 0.5
"""A segment of which the corpus uses less may be removed; what it used is then computed, and written, once more."""


class OnDisk:
    """Keeps what another reader gave in a folder that any number of processes share.

    Segments appear whole or not at all, and are found by content, so that other trainings and later cycles go on
    with them. Where the folder is full, segments that this corpus does not need make room; where all are needed
    it stays as it is, and the rest is computed at every visit. Two trainings of different corpora at once should
    have folders of their own: each would remove what the other one uses.

    Args:
        reader: computes what is not there.
        folder: of the feature cache.
        utterances: all that there are.
        max_bytes: the most that the folder holds, whoever wrote it.
        warn: called once, with the reason, when nothing more can be written; reading goes on.
        segment_bytes: how much is written at once.
    """

    def __init__(
        self,
        reader: FeatureReader,
        folder: str | Path,
        utterances: Iterable[Utterance],
        max_bytes: int,
        warn: Callable[[str], None],
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self.config = reader.config
        root = Path(folder).absolute() / ON_THE_FLY
        self._reader, self._room, self._segment_bytes = reader, BoundedFolder(root, max_bytes), segment_bytes
        self._folder = FeatureCache(root, self.config).folder
        found = ((audio_of(u), _key(u)) for u in utterances)
        self._keys: dict[Hashable, bytes] = {audio: key for audio, key in found if key is not None}
        ensured = FeatureCache(folder, self.config).folder
        self._index = SegmentIndex([ensured, self._folder], frozenset(self._keys.values()))
        self._warn, self._is_writing = warn, True
        self._waiting: dict[bytes, np.ndarray] = {}
        self._waiting_bytes = 0
        self._lock, self._publishing = threading.Lock(), threading.Lock()

    def frames(self, utterance: Utterance) -> int:
        """Return an utterance's frames as the other reader tells them, whatever lies in the cache."""
        return self._reader.frames(utterance)

    def get(self, utterance: Utterance) -> Tensor:
        """Return features (T, mel_bins) float32; raise as the other reader does."""
        key = self._keys.get(audio_of(utterance))
        found = None if key is None else self._find(key)
        if found is not None:
            return torch.from_numpy(found.astype(np.float32))
        features = self._reader.get(utterance)
        # a file that has changed since the beginning may not lie under its old key
        if self._is_writing and key is not None and _key(utterance) == key:
            self._keep(key, features.numpy().astype(np.float16))
        return features

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Write what waits for its segment to fill."""
        self._publish()

    def _find(self, key: bytes) -> np.ndarray | None:
        waiting = self._waiting.get(key)
        return self._index.find(key) if waiting is None else waiting

    def _keep(self, key: bytes, features: np.ndarray) -> None:
        with self._lock:
            self._waiting[key] = features
            self._waiting_bytes += features.nbytes
            is_full = self._waiting_bytes >= self._segment_bytes
            if is_full:
                self._waiting_bytes = 0
        if is_full:
            self._publish()

    def _publish(self) -> None:
        """Write what waits as one segment; what could not be written is computed again when it is wanted."""
        with self._publishing:
            with self._lock:
                features = dict(self._waiting)
            if features:
                self._write(features)
                self._index.refresh()
            with self._lock:
                for key in features:
                    del self._waiting[key]

    def _write(self, features: dict[bytes, np.ndarray]) -> None:
        path = self._folder / f"{uuid.uuid4().hex}{SUFFIX}"
        rows = list(features), list(features.values())
        try:
            if self._room.publish(path, *rows, self.config.mel_bins, self._is_needless):
                return
            reason = f"{self._room.root} is full of what this corpus needs: raise reading.disk_gb"
        except (RaysrError, OSError) as error:
            reason = str(error)
        if self._is_writing:
            self._is_writing = False
            self._warn(reason)

    def _is_needless(self, path: Path) -> bool:
        return path.parent != self._folder or self._index.used(path) < WORTH_KEEPING


def _key(utterance: Utterance) -> bytes | None:
    """Return the key by which the feature cache knows an utterance; None where its audio is not there."""
    with suppress(CorpusError, OSError):
        return cache_key(utterance)
    return None
