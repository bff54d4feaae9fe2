"""The decoder weights chosen are those with the fewest word errors on dev, by decoding with each.

Word confidence is calibrated on what they give.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import open_manifest
from raysr.decode.hypothesis import Hypothesis
from raysr.decode.ngram import Ngram
from raysr.decode.recognise import DecodeConfig, recognise
from raysr.evaluate.calibration import fit, judge
from raysr.evaluate.wer import score, total
from raysr.ipl.tuning import TuningConfig, tune
from raysr.model.config import DecoderConfig, EncoderConfig, ModelConfig
from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser


def test_the_best_weights_are_found(tmp_path: Path, make_corpus: Callable[..., Path]) -> None:
    dev = list(open_manifest(make_corpus(tmp_path, "dev", 120)))
    cache = FeatureCache(tmp_path / "cache")
    cache.ensure(dev)
    texts = [u.text or "" for u in dev]
    tokeniser = Tokeniser.train(texts)
    lm = Ngram.train([tokeniser.encode(text) for text in texts], 4, tokeniser.vocab_size)
    torch.manual_seed(0)
    model = AsrModel(
        ModelConfig(
            encoder=EncoderConfig(dim=16, layers=1, heads=2, feed_forward=16, kernel=3),
            decoder=DecoderConfig(heads=2, feed_forward=16),
        ),
        tokeniser.vocab_size,
    )
    grid = TuningConfig(lm_weights=[0.2, 1.0, 3.0], length_bonuses=[0.0, 2.0, 6.0])
    decode = DecodeConfig(beam=4)
    chosen, metrics = tune(model, tokeniser, lm, dev, cache, decode, grid)

    def decoded(config: DecodeConfig) -> list[list[Hypothesis]]:
        return recognise(model, tokeniser, [cache.get(u) for u in dev], config, lm)

    def wer(config: DecodeConfig) -> float:
        found = [tokeniser.decode(list(best[0].tokens)) for best in decoded(config)]
        return total(s.words for s in score([u.id for u in dev], texts, found)).rate or 0.0

    tried = {
        (w, b): wer(decode.model_copy(update={"lm_weight": w, "length_bonus": b}))
        for w in grid.lm_weights
        for b in grid.length_bonuses
    }
    assert len(set(tried.values())) > 1
    assert metrics["dev_wer"] == min(tried.values()) == tried[chosen.lm_weight, chosen.length_bonus]
    assert metrics["dev_wer_greedy"] == wer(decode.model_copy(update={"method": "greedy"}))
    assert chosen.beam == 4
    judged = judge(tokeniser, decoded(chosen), texts)
    assert chosen.calibration is not None
    assert chosen.calibration == fit(judged)
    sure = [c for nbest in decoded(chosen) for c in chosen.calibration.confidences(tokeniser, nbest)]
    assert sum(sure) / len(sure) == pytest.approx(judged.right.mean(), abs=0.01)
