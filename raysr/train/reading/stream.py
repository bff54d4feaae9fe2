"""Features computed from the audio at every visit: nothing is stored, and a training can begin at once."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from raysr.audio.fbank import Fbank, FbankConfig
from raysr.corpus.extract import features_of
from raysr.corpus.load import may_pass
from raysr.corpus.utterance import Utterance
from raysr.errors import AudioError, RaysrError
from raysr.train.reading.reader import frames_of

PAUSES_S = (0.5, 1.0)
"""Before a disk or a store that did not answer is asked again."""


class Streamed:
    """Reads audio files, parts of them, or rows of Parquet shards, and gives what the feature cache would hold."""

    def __init__(self, config: FbankConfig) -> None:
        self.config = config
        self._fbank = Fbank(config)

    def frames(self, utterance: Utterance) -> int:
        """Return an utterance's frames by its duration; see :func:`frames_of`."""
        return frames_of(utterance, self.config)

    def get(self, utterance: Utterance) -> Tensor:
        """Return features (T, mel_bins) float32.

        Raises:
            AudioError: the audio cannot be read, or has no features; names the utterance.
        """
        return patiently(lambda: self._compute(utterance))

    def _compute(self, utterance: Utterance) -> Tensor:
        try:
            return torch.from_numpy(features_of(utterance, self._fbank)).float()  # (T, F)
        except RaysrError:
            raise
        except Exception as error:
            # decoders may raise anything on damaged bytes
            raise AudioError(f"utterance {utterance.id}: {type(error).__name__}: {error}") from error


def patiently(read: Callable[[], Tensor]) -> Tensor:
    """Return what is read, asking again where a disk or a store may answer another time; raise what it raises."""
    for pause in PAUSES_S:
        try:
            return read()
        except AudioError as error:
            if not may_pass(error):
                raise
        time.sleep(pause)
    return read()
