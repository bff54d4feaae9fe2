"""What training asks of whatever gives it features; :class:`~raysr.corpus.features.FeatureCache` is one such reader."""

import json
from collections.abc import Hashable
from typing import Protocol

from torch import Tensor

from raysr.audio.fbank import FbankConfig
from raysr.audio.files import SAMPLE_RATE
from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError


class FeatureReader(Protocol):
    """Features of utterances, for many threads at once.

    Every reader gives the same bits: float32 that float16 can hold, as the feature cache stores them. A training
    is the same wherever its features come from.
    """

    config: FbankConfig

    def frames(self, utterance: Utterance) -> int:
        """Return how many frames to plan with, without reading audio; the same in every rank."""
        ...

    def get(self, utterance: Utterance) -> Tensor:
        """Return features (T, mel_bins) float32; raise :class:`RaysrError` naming an utterance that has none."""
        ...


def frames_of(utterance: Utterance, config: FbankConfig) -> int:
    """Return an utterance's frames by its duration alone.

    They are its features' own where the audio lasts as long as its manifest says. Where the audio ends earlier
    the features have fewer, never more: what is planned with is an upper bound, and a batch holds what was read.

    Raises:
        CorpusError: it is shorter than one window.
    """
    frames = config.frames(max(1, round(utterance.duration * SAMPLE_RATE)))
    if not frames:
        raise CorpusError(
            f"utterance {utterance.id}: {utterance.duration:g} s are shorter than one window: leave it out"
        )
    return frames


def audio_of(utterance: Utterance) -> Hashable:
    """Return what tells an utterance's audio from all others' of a training, without looking at any file."""
    mix = None if utterance.mix is None else json.dumps(utterance.mix, sort_keys=True)
    return utterance.audio, utterance.row, utterance.start, utterance.duration, mix
