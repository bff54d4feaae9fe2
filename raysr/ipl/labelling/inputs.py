"""What the teachers of a cycle need of an utterance: its samples, its features, or why there are none."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from raysr.audio.fbank import Fbank, FbankConfig
from raysr.config import Spec
from raysr.corpus.cutting import UNCUT
from raysr.corpus.features import FeatureCache
from raysr.corpus.load import may_pass
from raysr.corpus.load_together import load_together, neighbours
from raysr.corpus.utterance import Utterance
from raysr.errors import RaysrError, one_line
from raysr.ipl.labelling.attempts import Attempt
from raysr.teachers.base import FeatureTeacher, Teacher, Waveform, said_beforehand

READING = "reading the audio"
PAUSE_S = 0.5
"""Before reading is tried again; then twice as long."""


@dataclass(frozen=True)
class Needs:
    """What teachers ask for: ``waveforms`` (N,) at 16 kHz, and features made in each of these ways."""

    waveforms: bool
    features: tuple[FbankConfig, ...]


def needs_of(teachers: Iterable[Teacher]) -> Needs:
    """Return what teachers that are built ask for."""
    fbanks = [teacher.fbank if isinstance(teacher, FeatureTeacher) else None for teacher in teachers]
    return _needs(fbanks)


def needs_of_specs(specs: Iterable[Spec]) -> Needs:
    """Return what teachers will ask for, without building them: models stay off the machines that only decode.

    A class that does not say it beforehand (see :class:`~raysr.teachers.base.FeatureTeacher`) gets waveforms.
    """
    return _needs([said_beforehand(spec, "reads") for spec in specs])


def _needs(fbanks: Sequence[FbankConfig | None]) -> Needs:
    return Needs(None in fbanks, tuple(dict.fromkeys(f for f in fbanks if f is not None)))


@dataclass
class Inputs:
    """One utterance as the teachers get it.

    Attributes:
        utterance: which.
        error: why its audio could not be read; None when it could.
        kind: of the error: ``audio``, ``timeout`` or ``death``.
        waveform: (N,) float32 at 16 kHz, when a teacher needs it.
        features: fbank → (T, mel_bins) float32, for the fbanks that teachers ask for.
    """

    utterance: Utterance
    error: str | None = None
    kind: str = "audio"
    waveform: Waveform | None = None
    features: dict[FbankConfig, Tensor] = field(default_factory=dict)

    def features_of(self, fbank: FbankConfig) -> Tensor:
        """Return features made as ``fbank`` says; from the waveform if they were not made before."""
        if fbank not in self.features:
            assert self.waveform is not None
            self.features[fbank] = Fbank(fbank)(torch.from_numpy(self.waveform))
        return self.features[fbank]


class Reader:
    """Reads blocks of utterances.

    Args:
        needs: of the teachers.
        cache: features that may be there already; what is not is made from the audio.
        longest: utterances of more seconds are refused.
        retries: how often reading is tried again after an error of the disk or the store.
    """

    def __init__(self, needs: Needs, cache: FeatureCache, longest: float, retries: int) -> None:
        self.needs, self.cache, self.longest, self.retries = needs, cache, longest, retries

    def __call__(self, utterances: Sequence[Utterance], attempt: Attempt) -> list[Inputs]:
        """Read a block; whatever goes wrong with one utterance is its ``error``, and stays with it."""
        given_up = attempt.given_up(READING)
        inputs = [Inputs(utterance, self._refusal(utterance)) for utterance in utterances]
        for one in inputs:
            if lost := given_up.get(one.utterance.id):
                one.error, one.kind = lost.reason, lost.kind
            elif one.error is None:
                self._look_up(one)
        missing = [one for one in inputs if one.error is None and self._lacks(one)]
        alone = attempt.one_by_one_in(READING)
        groups = (
            [[n] for n in range(len(missing))] if alone else neighbours([one.utterance for one in missing])
        )
        for group in groups:
            self._load([missing[n] for n in group], attempt)
        return inputs

    def _refusal(self, utterance: Utterance) -> str | None:
        if utterance.duration <= self.longest:
            return None
        if uncut := utterance.custom.get(UNCUT):
            return str(uncut)
        return f"{utterance.duration:.0f} s long: cut it (recogniser.longest is {self.longest:g} s)"

    def _look_up(self, one: Inputs) -> None:
        """Take from the cache what is there."""
        if self.cache.config not in self.needs.features:
            return
        try:
            if one.utterance in self.cache:
                one.features[self.cache.config] = self.cache.get(one.utterance)
        except (RaysrError, OSError) as error:
            one.error = _told(error)

    def _lacks(self, one: Inputs) -> bool:
        return self.needs.waveforms or any(f not in one.features for f in self.needs.features)

    def _load(self, group: Sequence[Inputs], attempt: Attempt) -> None:
        """Load pieces of one recording and make what the teachers need of them."""
        attempt.step([one.utterance.id for one in group], READING)
        found = load_together([one.utterance for one in group])
        for times in range(self.retries):
            again = [
                n for n, samples in enumerate(found) if isinstance(samples, Exception) and may_pass(samples)
            ]
            if not again:
                break
            time.sleep(PAUSE_S * 2**times)
            for n in again:
                found[n] = load_together([group[n].utterance])[0]
        for one, samples in zip(group, found, strict=True):
            if isinstance(samples, np.ndarray):
                self._make(one, samples)
            else:
                one.error = _told(samples)

    def _make(self, one: Inputs, samples: Waveform) -> None:
        one.waveform = samples
        try:
            for fbank in self.needs.features:
                one.features_of(fbank)
        except Exception as error:
            one.error = _told(error)
        if not self.needs.waveforms:
            one.waveform = None


def _told(error: Exception) -> str:
    """Return an error as a row tells it."""
    known = isinstance(error, RaysrError | OSError)
    return one_line(str(error) if known else f"{type(error).__name__}: {error}")
