"""Choosing the decoder's weights on a development set: one pass of the encoder, a search for each weight.

Then the confidence of words is calibrated on what is recognised with the weights chosen.
"""

import itertools
import random
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from raysr.config import Config
from raysr.corpus.features import FeatureCache
from raysr.corpus.utterance import Utterance
from raysr.decode.greedy import greedy
from raysr.decode.hypothesis import Hypothesis
from raysr.decode.language_model import LanguageModel
from raysr.decode.prefix_beam import PrefixBeam
from raysr.decode.recognise import DecodeConfig, recognise
from raysr.evaluate.calibration import fit, judge
from raysr.evaluate.wer import score, total
from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser

BATCH = 32


class TuningConfig(Config):
    """The weights tried, all with all, on so many ``utterances`` of dev; empty lists change nothing."""

    lm_weights: list[float] = Field(default_factory=lambda: [0.3, 0.6, 0.9])
    length_bonuses: list[float] = Field(default_factory=lambda: [0.0, 0.8, 1.6])
    utterances: int = Field(default=200, ge=1)


def tune(
    model: AsrModel,
    tokeniser: Tokeniser,
    lm: LanguageModel | None,
    dev: Sequence[Utterance],
    cache: FeatureCache,
    decode: DecodeConfig,
    config: TuningConfig,
) -> tuple[DecodeConfig, dict[str, float]]:
    """Return the decoding with the fewest word errors on dev, calibrated, and the WERs found: greedy and best."""
    dev = random.Random(0).sample(list(dev), min(len(dev), config.utterances))
    batches = _log_probs(model, [cache.get(u) for u in dev])

    def wer(found: Sequence[Sequence[Hypothesis]]) -> float:
        texts = [tokeniser.decode(list(h.tokens)) for batch in found for h in batch]
        counts = total(s.words for s in score([u.id for u in dev], [u.text or "" for u in dev], texts))
        return counts.rate if counts.rate is not None else 1.0

    greedy_wer = wer([greedy(log_probs, lengths) for log_probs, lengths in batches])

    def calibrated(chosen: DecodeConfig) -> DecodeConfig:
        nbest = recognise(model, tokeniser, [cache.get(u) for u in dev], chosen, lm)
        calibration = fit(judge(tokeniser, nbest, [u.text or "" for u in dev]))
        return chosen.model_copy(update={"calibration": calibration})

    if decode.method == "greedy":
        return calibrated(decode), {"dev_wer": greedy_wer, "dev_wer_greedy": greedy_wer}
    weights = itertools.product(
        (config.lm_weights if lm else None) or [decode.lm_weight],
        config.length_bonuses or [decode.length_bonus],
    )
    candidates = [decode.model_copy(update={"lm_weight": w, "length_bonus": b}) for w, b in weights]
    wers = [
        wer(
            [
                [nbest[0] for nbest in PrefixBeam(c, lm).decode(log_probs, lengths, 1)]
                for log_probs, lengths in batches
            ]
        )
        for c in candidates
    ]
    best = min(range(len(wers)), key=wers.__getitem__)
    return calibrated(candidates[best]), {"dev_wer": wers[best], "dev_wer_greedy": greedy_wer}


def _log_probs(model: AsrModel, features: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return CTC log-posteriors (B, T', V) and lengths (B,) of the features, in their order."""
    model.eval()
    batches = []
    with torch.inference_mode():
        for first in range(0, len(features), BATCH):
            part = features[first : first + BATCH]
            encoded = model.encode(
                pad_sequence(list(part), batch_first=True), torch.tensor([len(f) for f in part])
            )
            batches.append((model.ctc_log_probs(encoded.out), encoded.lengths))
    return batches
