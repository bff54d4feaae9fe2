"""The methods ``attention`` and ``joint`` with a whole model: what they need, and what they say of each token."""

import math
from typing import Any

import pytest
import torch

from raysr.decode.alignment import align
from raysr.decode.decode_config import DecodeConfig
from raysr.decode.hypothesis import Hypothesis
from raysr.decode.one_pass import one_pass
from raysr.errors import ConfigError
from raysr.model.config import DecoderConfig, EncoderConfig, ModelConfig
from raysr.model.model import AsrModel

VOCAB, LENGTHS = 8, torch.tensor([12, 5])


def model_of(ctc_weight: float) -> AsrModel:
    torch.manual_seed(2)
    config = ModelConfig(
        encoder=EncoderConfig(dim=16, layers=1, heads=2, feed_forward=16, kernel=3),
        decoder=DecoderConfig(heads=2, feed_forward=16),
        ctc_weight=ctc_weight,
    )
    return AsrModel(config, VOCAB).eval().requires_grad_(False)


def frames() -> torch.Tensor:
    return 4 * torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))


def decode(model: AsrModel, method: str, **options: Any) -> list[list[Hypothesis]]:
    config = DecodeConfig.parse({"method": method, "beam": 6, "nbest": 4, **options})
    return one_pass(model, frames(), LENGTHS, config)


def test_both_say_what_the_attention_decoder_and_every_alignment_say() -> None:
    model = model_of(0.5)
    for method, weight in (("attention", 0.0), ("joint", 0.4)):
        found = decode(model, method, joint_ctc_weight=0.4, length_bonus=0.1)
        attention = model.attention_log_probs(
            frames(), LENGTHS, [[h.tokens for h in nbest] for nbest in found]
        )
        for nbest, expected in zip(found, attention, strict=True):
            assert len(nbest) == 4
            assert [h.attention for h in nbest] == pytest.approx(expected.tolist(), abs=1e-4)
            for h in nbest:
                ctc = weight * h.ctc if weight else 0.0
                assert h.score == pytest.approx(ctc + (1 - weight) * h.attention + 0.1 * len(h.tokens))


@pytest.mark.parametrize("method", ["attention", "joint"])
def test_times_and_confidences_are_those_of_the_best_ctc_path(method: str) -> None:
    model = model_of(0.5)
    found = decode(model, method, max_length_ratio=0.5)
    tokens = [[h.tokens for h in nbest] for nbest in found]
    assert any(len(sequence) > 1 for nbest in tokens for sequence in nbest)
    alignments = align(model.ctc_log_probs(frames()), LENGTHS, tokens)
    for nbest, row in zip(found, alignments, strict=True):
        for h, alignment in zip(nbest, row, strict=True):
            assert alignment is not None
            assert (h.times, h.confidences) == (alignment.peaks, alignment.confidences)


def test_tokens_that_ctc_cannot_hold_have_times_and_no_confidence() -> None:
    model = model_of(0.5)
    assert model.decoder is not None
    model.decoder.output.bias[5] += 100.0
    (found, _) = decode(model, "attention", nbest=30, end_detection=False)
    longest = max(found, key=lambda h: len(h.tokens))
    assert longest.tokens == (5,) * 12
    assert longest.ctc == -math.inf
    assert longest.times == tuple(range(12))
    assert longest.confidences == (0.0,) * 12


def test_without_a_ctc_head_confidence_is_the_attention_decoders() -> None:
    model = model_of(0.0)
    found = decode(model, "attention", max_length_ratio=0.5)
    assert any(len(h.tokens) > 1 for nbest in found for h in nbest)
    for nbest, length in zip(found, LENGTHS.tolist(), strict=True):
        for h in nbest:
            assert h.ctc == 0.0
            assert h.attention is not None
            assert math.exp(h.attention) <= math.prod(h.confidences)
            assert list(h.times) == sorted(set(h.times))
            assert len(h.times) == len(h.tokens)
            assert all(0 <= time < length for time in h.times)


def test_ctc_alone_needs_no_attention_decoder() -> None:
    found = decode(model_of(1.0), "joint", joint_ctc_weight=1.0)
    assert all(h.attention is None and h.score == h.ctc for nbest in found for h in nbest)


def test_a_method_that_needs_a_missing_head_is_a_clear_error() -> None:
    for method in ("attention", "joint"):
        with pytest.raises(ConfigError, match="without an attention decoder"):
            decode(model_of(1.0), method)
    with pytest.raises(ConfigError, match="without a CTC head"):
        decode(model_of(0.0), "joint")
