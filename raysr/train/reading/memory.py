"""Features kept in memory from the first visit on, for corpora that fit."""

import math
from collections.abc import Hashable, Iterable

import torch
from torch import Tensor

from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError
from raysr.train.reading.reader import FeatureReader, audio_of

GB = 10**9


class InMemory:
    """Keeps what another reader gave, as float16.

    The sampler deals every utterance to every rank sooner or later, so each rank comes to hold the whole corpus.

    Args:
        reader: asked once for each utterance.
        utterances: all that there are.
        max_bytes: the most that their features may take.

    Raises:
        CorpusError: they take more; says how much.
    """

    def __init__(self, reader: FeatureReader, utterances: Iterable[Utterance], max_bytes: int) -> None:
        self.config = reader.config
        self._reader = reader
        self._kept: dict[Hashable, Tensor] = {}
        frames = sum({audio_of(u): reader.frames(u) for u in utterances}.values())
        needed = frames * self.config.mel_bins * torch.float16.itemsize
        if needed > max_bytes:
            enough = math.ceil(10 * needed / GB) / 10
            raise CorpusError(
                f"the features take {needed / GB:.2f} GB of memory in every rank, more than the {max_bytes / GB:g} GB "
                f"allowed: set reading.memory_gb to {enough}, or leave out load_to_memory"
            )

    def frames(self, utterance: Utterance) -> int:
        """Return an utterance's frames as the other reader tells them."""
        return self._reader.frames(utterance)

    def get(self, utterance: Utterance) -> Tensor:
        """Return features (T, mel_bins) float32; raise as the other reader does, and ask it again the next time."""
        audio = audio_of(utterance)
        kept = self._kept.get(audio)
        if kept is None:
            kept = self._kept[audio] = self._reader.get(utterance).half()
        return kept.float()
