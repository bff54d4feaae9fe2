"""Audio that is made harder anew at each visit: nothing of it is kept, and no two visits are alike."""

from collections.abc import Callable

import torch
from torch import Tensor

from raysr.audio.augment import Augmentation, augment
from raysr.audio.draws import WaveformConfig
from raysr.audio.fbank import Fbank, FbankConfig
from raysr.corpus.load import load_waveform
from raysr.corpus.utterance import Utterance
from raysr.errors import AudioError, RaysrError
from raysr.train.reading.faults import Unreadable
from raysr.train.reading.stream import patiently


class Harder:
    """Makes features of utterances whose audio something was done to, as a cache would hold them.

    Args:
        config: what is done, and how often.
        features: how they are made.
        unreadable: counts the utterances whose audio, or what is to sound behind it, cannot be read.
        enough: says whether so many frames are enough for the text of an utterance.

    Raises:
        AudioError: a folder of sounds is not there, or holds none.
    """

    def __init__(
        self,
        config: WaveformConfig,
        features: FbankConfig,
        unreadable: Unreadable,
        enough: Callable[[Utterance, int], bool] = lambda utterance, frames: frames > 0,
    ) -> None:
        config.check_files()
        self._config, self._fbank, self._unreadable = config, Fbank(features), unreadable
        self._enough = enough

    def get(self, utterance: Utterance, seed: int) -> Tensor | None:
        """Return features (T, mel_bins) float32 of a visit.

        None where nothing is done, where something cannot be read, or where what would come out is too short.
        """
        augmentation = self._config.draw(seed)
        if augmentation is None:
            return None
        try:
            features = patiently(lambda: self._features(utterance, augmentation))
        except RaysrError as error:
            problem = AudioError(f"utterance {utterance.id}, to be made harder: {error}")
            self._unreadable.was_not(utterance.id, problem)
            return None
        self._unreadable.was_read(utterance.id)
        usable = self._enough(utterance, len(features)) and bool(torch.isfinite(features).all())
        return features if usable else None

    def _features(self, utterance: Utterance, augmentation: Augmentation) -> Tensor:
        try:
            samples = augment(load_waveform(utterance), augmentation)
            return self._fbank(torch.from_numpy(samples)).half().float()  # (T, mel_bins)
        except RaysrError:
            raise
        except Exception as error:
            # codecs and decoders may raise anything
            raise AudioError(f"{type(error).__name__}: {error}") from error
