"""Audio that is made harder anew at each visit: nothing of it is kept, and no two visits are alike."""

import torch
from torch import Tensor

from raysr.audio.augment import Augmentation, augment
from raysr.audio.draws import WaveformConfig
from raysr.audio.fbank import Fbank, FbankConfig
from raysr.corpus.load import load_waveform
from raysr.corpus.utterance import Utterance
from raysr.errors import AudioError, RaysrError
from raysr.train.reading.faults import Unreadable


class Harder:
    """Makes features of utterances whose audio something was done to, as a cache would hold them.

    Args:
        config: what is done, and how often.
        features: how they are made.
        unreadable: counts the utterances whose audio, or what is to sound behind it, cannot be read.

    Raises:
        AudioError: a folder of sounds is not there, or holds none.
    """

    def __init__(self, config: WaveformConfig, features: FbankConfig, unreadable: Unreadable) -> None:
        config.check_files()
        self._config, self._fbank, self._unreadable = config, Fbank(features), unreadable

    def get(self, utterance: Utterance, seed: int) -> Tensor | None:
        """Return features (T, mel_bins) float32 of a visit; None where nothing is done, or nothing can be read."""
        augmentation = self._config.draw(seed)
        if augmentation is None:
            return None
        try:
            features = self._features(utterance, augmentation)
        except RaysrError as error:
            problem = AudioError(f"utterance {utterance.id}, to be made harder: {error}")
            self._unreadable.was_not(utterance.id, problem)
            return None
        self._unreadable.was_read()
        return features if len(features) and torch.isfinite(features).all() else None

    def _features(self, utterance: Utterance, augmentation: Augmentation) -> Tensor:
        try:
            samples = augment(load_waveform(utterance), augmentation)
            return self._fbank(torch.from_numpy(samples)).half().float()  # (T, mel_bins)
        except RaysrError:
            raise
        except Exception as error:
            # codecs and decoders may raise anything
            raise AudioError(f"{type(error).__name__}: {error}") from error
