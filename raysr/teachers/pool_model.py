"""A pool entry as teacher, or the average of several."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from raysr.audio.fbank import Fbank, FbankConfig
from raysr.config import Config as Options
from raysr.decode.calibration import Calibration
from raysr.decode.hypothesis import Hypothesis, mean_confidence
from raysr.decode.recognise import DecodeConfig, batches_of_like_length, recognise_with_greedy
from raysr.model.distillation import Distributions
from raysr.pool import Entry, Pool, average, load_entry
from raysr.teachers.base import TeacherContext, TeacherOutput, Waveform
from raysr.text.tokeniser import Tokeniser


@dataclass(frozen=True)
class _Reader:
    """Turns hypotheses into what a teacher says."""

    tokeniser: Tokeniser
    calibration: Calibration | None

    def output(self, nbest: Sequence[Hypothesis], greedy: Hypothesis | None, with_lm: bool) -> TeacherOutput:
        """Write down the n-best list; ``greedy`` is what CTC alone reads, when there is a CTC head."""
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
            word_confidences=self.word_confidences(nbest),
            nbest=tuple((self.text(h), h.score) for h in nbest[1:]),
            ctc_attention_agreement=self.agreement(nbest) if greedy else None,
            text_without_lm=self.text(greedy) if greedy and with_lm else None,
            ended=best.ended,
        )

    def agreement(self, nbest: Sequence[Hypothesis]) -> float | None:
        """Compare the hypotheses that CTC and attention like best; None without both heads, or without a choice.

        Both choose from one list, so that it is the heads that differ and not the language model that made the list.
        """
        if len(nbest) < 2 or any(h.attention is None for h in nbest):
            return None
        by_ctc = self.text(max(nbest, key=lambda h: h.ctc))
        by_attention = self.text(max(nbest, key=lambda h: h.attention or 0.0))
        if not by_ctc:
            return 1.0 if not by_attention else 0.0
        return max(0.0, 1.0 - jiwer.wer(by_ctc, by_attention))

    def word_confidences(self, nbest: Sequence[Hypothesis]) -> tuple[float, ...]:
        """Return the chance that each word is right where that was calibrated, else how sure its tokens are."""
        if self.calibration is not None:
            return tuple(self.calibration.confidences(self.tokeniser, nbest))
        best = nbest[0]
        words = self.tokeniser.words(best.tokens)
        return tuple(mean_confidence(best.confidences[word.first : word.end]) for word in words)

    def text(self, hypothesis: Hypothesis) -> str:
        return " ".join(self.tokeniser.decode(list(hypothesis.tokens)).split())


class PoolModel:
    """Decodes with the entry's own settings; of several entries the weights are averaged."""

    class Config(Options):
        """What is loaded, and how it decodes.

        Attributes:
            entries: folders of pool entries; the first one's language model is used.
            shares: what each counts for in the average, adding up to 1; None counts all alike.
            decode: replaces the first entry's settings.
        """

        entries: list[str] = Field(min_length=1)
        shares: list[float] | None = None
        decode: DecodeConfig | None = None

        @model_validator(mode="after")
        def _whole(self) -> "PoolModel.Config":
            if self.shares is not None and (
                len(self.shares) != len(self.entries) or not math.isclose(sum(self.shares), 1)
            ):
                raise ValueError(f"shares: {len(self.entries)} numbers that add up to 1")
            return self

    @classmethod
    def reads(cls, config: Config) -> FbankConfig:
        """Return how the features have to be made, without loading a model."""
        return _entry(config.entries[0]).config().fbank

    def __init__(self, config: Config, context: TeacherContext) -> None:
        entries = [_entry(path) for path in config.entries]
        self.recogniser = load_entry(entries[0], context.device)
        if len(entries) > 1:
            self.recogniser.model.load_state_dict(average(entries, config.shares))
        self.decode = config.decode or self.recogniser.config.decode
        self.name = "+".join(entry.name for entry in entries)
        hashes = [entry.weights_hash[:16] for entry in entries]
        shares = [f"{share:g}·" for share in config.shares or ()] or [""] * len(entries)
        self.version = "+".join(share + name for share, name in zip(shares, hashes, strict=True))
        self.fbank: FbankConfig = self.recogniser.config.fbank
        self._extract = Fbank(self.fbank)
        self.tokeniser = self.recogniser.tokeniser
        self._reader = _Reader(self.tokeniser, self.decode.calibration)

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[TeacherOutput]:
        return self.transcribe_features([self._extract(torch.from_numpy(w)) for w in waveforms])

    def transcribe_features(self, features: Sequence[Tensor]) -> list[TeacherOutput]:
        """Transcribe fbank features (T, mel_bins) made as ``fbank`` says."""
        r = self.recogniser
        with_lm = r.lm is not None and self.decode.method != "greedy" and self.decode.lm_weight != 0
        found = recognise_with_greedy(r.model, r.tokeniser, features, self.decode, r.lm)
        return [self._reader.output(nbest, greedy, with_lm) for nbest, greedy in found]

    @torch.inference_mode()
    def distributions(
        self, features: Sequence[Tensor], texts: Sequence[Sequence[int]], k: int
    ) -> list[Distributions]:
        """Return the attention decoder's k likeliest tokens at every token of each text and at eos, (U + 1, k).

        Raises :class:`ConfigError` for a model without an attention decoder.
        """
        model = self.recogniser.model
        device = next(model.parameters()).device
        found: dict[int, Distributions] = {}
        for indices in batches_of_like_length([len(f) for f in features], self.decode):
            lengths = torch.tensor([len(features[i]) for i in indices], device=device)
            encoded = model.encode(
                pad_sequence([features[i] for i in indices], batch_first=True).to(device), lengths
            )
            tokens = [torch.tensor(texts[i], dtype=torch.long) for i in indices]
            padded = pad_sequence(tokens, batch_first=True).to(device)  # (B, U)
            log_probs, ids = model.attention_distributions(*encoded, padded, k)  # (B, U + 1, k)
            log_probs, ids = log_probs.cpu(), None if ids is None else ids.cpu()
            for row, index in enumerate(indices):
                places = (row, slice(len(texts[index]) + 1))
                found[index] = Distributions(log_probs[places], None if ids is None else ids[places])
        return [found[i] for i in range(len(features))]


def _entry(path: str) -> Entry:
    return Pool(Path(path).parent).get(Path(path).name)
