"""A pool entry as teacher, or the average of several."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import torch
from pydantic import Field
from torch import Tensor

from raysr.audio.fbank import Fbank, FbankConfig
from raysr.config import Config as Options
from raysr.decode.hypothesis import Hypothesis
from raysr.decode.recognise import DecodeConfig, recognise
from raysr.pool import Entry, Pool, average, load_entry
from raysr.teachers.base import TeacherContext, TeacherOutput, Waveform
from raysr.text.tokeniser import Tokeniser


@dataclass(frozen=True)
class _Reader:
    """Turns hypotheses into what a teacher says."""

    tokeniser: Tokeniser

    def output(self, nbest: Sequence[Hypothesis]) -> TeacherOutput:
        if not nbest:
            return TeacherOutput()
        best = nbest[0]
        return TeacherOutput(
            text=self.text(best),
            tokens=best.tokens,
            score=best.score,
            normalised_score=best.normalised_score,
            ctc=best.ctc,
            attention=best.attention,
            lm=best.lm,
            confidences=best.confidences,
            nbest=tuple((self.text(h), h.score) for h in nbest[1:]),
            ctc_attention_agreement=self.agreement(nbest),
        )

    def agreement(self, nbest: Sequence[Hypothesis]) -> float | None:
        """Compare the hypotheses that CTC and attention like best; None without attention."""
        read = [h for h in nbest if h.attention is not None]
        if not read:
            return None
        by_ctc = self.text(max(read, key=lambda h: h.ctc))
        by_attention = self.text(max(read, key=lambda h: h.attention or 0.0))
        if not by_ctc:
            return 1.0 if not by_attention else 0.0
        return max(0.0, 1.0 - jiwer.wer(by_ctc, by_attention))

    def text(self, hypothesis: Hypothesis) -> str:
        return " ".join(self.tokeniser.decode(list(hypothesis.tokens)).split())


class PoolModel:
    """Decodes with the entry's own settings; of several entries the weights are averaged."""

    class Config(Options):
        """``entries``: folders of pool entries; ``decode`` replaces the first entry's settings."""

        entries: list[str] = Field(min_length=1)
        decode: DecodeConfig | None = None

    @classmethod
    def reads(cls, config: Config) -> FbankConfig:
        """Return how the features have to be made, without loading a model."""
        return _entry(config.entries[0]).config().fbank

    def __init__(self, config: Config, context: TeacherContext) -> None:
        entries = [_entry(path) for path in config.entries]
        self.recogniser = load_entry(entries[0], context.device)
        if len(entries) > 1:
            self.recogniser.model.load_state_dict(average(entries))
        self.decode = config.decode or self.recogniser.config.decode
        self.name = "+".join(entry.name for entry in entries)
        self.version = "+".join(entry.weights_hash[:16] for entry in entries)
        self.fbank: FbankConfig = self.recogniser.config.fbank
        self._extract = Fbank(self.fbank)
        self._reader = _Reader(self.recogniser.tokeniser)

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[TeacherOutput]:
        return self.transcribe_features([self._extract(torch.from_numpy(w)) for w in waveforms])

    def transcribe_features(self, features: Sequence[Tensor]) -> list[TeacherOutput]:
        """Transcribe fbank features (T, mel_bins) made as ``fbank`` says."""
        r = self.recogniser
        return [
            self._reader.output(nbest)
            for nbest in recognise(r.model, r.tokeniser, features, self.decode, r.lm)
        ]


def _entry(path: str) -> Entry:
    return Pool(Path(path).parent).get(Path(path).name)
