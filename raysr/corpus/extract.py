"""Computing features: what one worker of the feature cache does with the utterances it is given."""

import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from raysr.audio.fbank import Fbank, FbankConfig
from raysr.corpus.load import load_waveform
from raysr.corpus.segments import SUFFIX, write_segment
from raysr.corpus.utterance import Utterance
from raysr.errors import AudioError, RaysrError


@dataclass(frozen=True)
class ExtractTask:
    """Utterances with their cache keys, and where their features go."""

    utterances: list[tuple[bytes, Utterance]]
    folder: Path
    config: FbankConfig

    def halves(self) -> list["ExtractTask"]:
        middle = len(self.utterances) // 2
        parts = (self.utterances[:middle], self.utterances[middle:])
        return [ExtractTask(part, self.folder, self.config) for part in parts]


def extract(task: ExtractTask) -> dict[str, str]:
    """Write one segment with the features of the task's utterances; return id → reason of those without.

    Raises:
        CorpusError: the disk is full.
    """
    fbank = Fbank(task.config)
    keys: list[bytes] = []
    features: list[np.ndarray] = []
    errors: dict[str, str] = {}
    for key, utterance in task.utterances:
        try:
            features.append(features_of(utterance, fbank))
            keys.append(key)
        except RaysrError as error:
            errors[utterance.id] = str(error)
        except Exception as error:
            errors[utterance.id] = f"utterance {utterance.id}: {type(error).__name__}: {error}"
    if keys:
        name = f"{uuid.uuid4().hex}{SUFFIX}"
        write_segment(task.folder / name, keys, features, task.config.mel_bins)
    return errors


def features_of(utterance: Utterance, fbank: Fbank) -> np.ndarray:
    """Return the features of an utterance as the cache keeps them, (T, mel_bins) float16.

    Raises:
        AudioError: its audio cannot be read, is shorter than a window, or has features that are not finite.
    """
    waveform = load_waveform(utterance)
    features = fbank(torch.from_numpy(waveform)).numpy()  # (T, bins)
    if not len(features):
        raise AudioError(
            f"utterance {utterance.id}: {len(waveform)} samples are shorter than one window: leave it out"
        )
    if not np.isfinite(features).all():
        raise AudioError(f"utterance {utterance.id}: its features are not finite: leave it out")
    return features.astype(np.float16)
