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


class FaultTolerant:
    """Gives one frame of zeros for an utterance that cannot be read, and tells why.

    No encoder of raysr makes a frame of its own from that, so the utterance counts as one that is too short for its
    text (see :meth:`raysr.model.model.AsrModel.loss`): its loss is 0 and its weight stays in the mean. So every rank
    takes every step, and the gradient is what it is for all the other utterances, on however many ranks. Leaving the
    utterance out instead would change batches on one rank alone, and could leave that rank none at all.

    Args:
        reader: what is asked.
        count: how many utterances there are.
        tell: called with the id and the reason, once for each utterance.
    """

    def __init__(self, reader: FeatureReader, count: int, tell: Callable[[str, str], None]) -> None:
        self.config = reader.config
        self._reader, self._count, self._tell = reader, count, tell
        self._unreadable: set[str] = set()
        self._in_a_row = 0
        self._lock = threading.Lock()

    def frames(self, utterance: Utterance) -> int:
        """Return an utterance's frames as the other reader tells them."""
        return self._reader.frames(utterance)

    def get(self, utterance: Utterance) -> Tensor:
        """Return features (T, mel_bins) float32.

        Raises:
            CorpusError: more than one and a hundredth of all utterances could not be read, or 64 visits in a row,
                as when a disk is gone.
        """
        try:
            features = self._reader.get(utterance)
        except RaysrError as error:
            self._count_in(utterance.id, error)
            return torch.zeros(1, self.config.mel_bins)
        with self._lock:
            self._in_a_row = 0
        return features

    def _count_in(self, name: str, error: RaysrError) -> None:
        with self._lock:
            self._in_a_row += 1
            is_new = name not in self._unreadable
            self._unreadable.add(name)
            if is_new:
                self._tell(name, str(error))
            if self._in_a_row >= MOST_IN_A_ROW or len(self._unreadable) > 1 + MOST_UNREADABLE * self._count:
                raise CorpusError(
                    f"{len(self._unreadable)} of {self._count} utterances cannot be read, the last {self._in_a_row} "
                    f"visits one after the other: see whether their audio is still there; the last one: {error}"
                ) from error
