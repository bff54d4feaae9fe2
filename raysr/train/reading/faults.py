"""What becomes of an utterance that cannot be read in the middle of a training."""

import threading
from collections.abc import Callable

import torch
from torch import Tensor

from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError, RaysrError
from raysr.train.reading.reader import FeatureReader

MOST_UNREADABLE = 0.01
MOST_IN_A_ROW = 64


class Unreadable:
    """Counts the utterances that could not be read when they were last visited.

    Args:
        count: how many utterances there are.
        tell: called with the id and the reason, once for each utterance.
    """

    def __init__(self, count: int, tell: Callable[[str, str], None]) -> None:
        self._count, self._tell = count, tell
        self._names: set[str] = set()
        self._told: set[str] = set()
        self._in_a_row = 0
        self._lock = threading.Lock()

    def was_read(self, name: str) -> None:
        """Note that a visit went well."""
        with self._lock:
            self._in_a_row = 0
            self._names.discard(name)

    def was_not(self, name: str, error: RaysrError) -> None:
        """Note an utterance and why.

        Raises:
            CorpusError: more than one and a hundredth of all utterances could not be read, or 64 visits in a row,
                as when a disk is gone.
        """
        with self._lock:
            self._in_a_row += 1
            self._names.add(name)
            if name not in self._told:
                self._told.add(name)
                self._tell(name, str(error))
            if self._in_a_row >= MOST_IN_A_ROW or len(self._names) > 1 + MOST_UNREADABLE * self._count:
                raise CorpusError(
                    f"{len(self._names)} of {self._count} utterances cannot be read, the last {self._in_a_row} "
                    f"visits one after the other: see whether their audio is still there; the last one: {error}"
                ) from error


class FaultTolerant:
    """Gives one frame of zeros for an utterance that cannot be read, and tells why.

    No encoder of raysr makes a frame of its own from that, so the utterance counts as one that is too short for its
    text (see :meth:`raysr.model.model.AsrModel.loss`): its loss is 0 and its weight stays in the mean. So every rank
    takes every step, and the gradient is what it is for all the other utterances, on however many ranks. Leaving the
    utterance out instead would change batches on one rank alone, and could leave that rank none at all.

    Args:
        reader: what is asked.
        unreadable: counts what cannot be read, and ends the training where that is too much.
    """

    def __init__(self, reader: FeatureReader, unreadable: Unreadable) -> None:
        self.config = reader.config
        self._reader, self._unreadable = reader, unreadable

    def frames(self, utterance: Utterance) -> int:
        """Return an utterance's frames as the other reader tells them."""
        return self._reader.frames(utterance)

    def get(self, utterance: Utterance) -> Tensor:
        """Return features (T, mel_bins) float32; raise :class:`CorpusError` as :meth:`Unreadable.was_not` does."""
        try:
            features = self._reader.get(utterance)
        except RaysrError as error:
            self._unreadable.was_not(utterance.id, error)
            return torch.zeros(1, self.config.mel_bins)
        self._unreadable.was_read(utterance.id)
        return features
