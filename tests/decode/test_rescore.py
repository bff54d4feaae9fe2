"""Attention rescoring with the real decoder: parts, weights and order."""

import dataclasses

import pytest
import torch

from raysr.decode.hypothesis import Hypothesis
from raysr.decode.rescore import RescoreConfig, rescore
from raysr.errors import ConfigError
from raysr.model.config import DecoderConfig, EncoderConfig, ModelConfig
from raysr.model.model import AsrModel

CONFIG = ModelConfig(
    encoder=EncoderConfig(dim=16, layers=1, heads=2, feed_forward=16, kernel=3),
    decoder=DecoderConfig(heads=2, feed_forward=16),
)


def hypothesis(tokens: tuple[int, ...], ctc: float, lm: float) -> Hypothesis:
    return Hypothesis(tokens, ctc, ctc, lm, None, tuple(range(len(tokens))), (0.5,) * len(tokens))


def first_pass() -> tuple[AsrModel, torch.Tensor, torch.Tensor, list[list[Hypothesis]]]:
    torch.manual_seed(0)
    out, lengths = torch.randn(2, 9, 16), torch.tensor([9, 6])
    nbest = [
        [hypothesis((3, 4), -2.0, -1.0), hypothesis((3, 4, 5), -2.5, -9.0), hypothesis((), -7.0, -0.5)],
        [hypothesis((6,), -1.0, -3.0)],
    ]
    return AsrModel(CONFIG, 8).eval().requires_grad_(False), out, lengths, nbest


def test_the_score_is_the_weighted_sum_of_parts_that_are_kept() -> None:
    model, out, lengths, nbest = first_pass()
    config = RescoreConfig(attention_weight=0.4, ctc_weight=0.6, lm_weight=0.2, length_bonus=0.1)
    rescored = rescore(model, out, lengths, nbest, config)
    for b, hypotheses in enumerate(rescored):
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
        assert {h.tokens for h in hypotheses} == {h.tokens for h in nbest[b]}
        for found in hypotheses:
            alone = model.attention_log_probs(
                out[b : b + 1, : lengths[b]], lengths[b : b + 1], [[found.tokens]]
            )
            assert found.attention == pytest.approx(float(alone[0][0]), abs=1e-4)
            expected = 0.4 * found.attention + 0.6 * found.ctc + 0.2 * found.lm + 0.1 * len(found.tokens)
            assert found.score == pytest.approx(expected)
            (before,) = [h for h in nbest[b] if h.tokens == found.tokens]
            assert dataclasses.replace(found, attention=None, score=before.score) == before


def test_weights_decide_the_order() -> None:
    model, out, lengths, nbest = first_pass()
    nothing = RescoreConfig(attention_weight=0, ctc_weight=0, lm_weight=0)
    for weight, best in (("ctc_weight", (3, 4)), ("lm_weight", ()), ("length_bonus", (3, 4, 5))):
        config = nothing.model_copy(update={weight: 1.0})
        assert rescore(model, out, lengths, nbest, config)[0][0].tokens == best


def test_a_model_without_an_attention_decoder_is_a_clear_error() -> None:
    _, out, lengths, nbest = first_pass()
    with pytest.raises(ConfigError, match="attention"):
        rescore(
            AsrModel(CONFIG.model_copy(update={"ctc_weight": 1.0}), 8), out, lengths, nbest, RescoreConfig()
        )


@pytest.mark.parametrize("reverse_weight", [0.0, 0.3, 1.0])
def test_the_attention_of_a_bidirectional_decoder_is_that_of_both_directions(reverse_weight: float) -> None:
    _, out, lengths, nbest = first_pass()
    both = {"decoder": CONFIG.decoder.model_copy(update={"reverse_layers": 1}), "reverse_weight": 0.3}
    model = AsrModel(CONFIG.model_copy(update=both), 8).eval().requires_grad_(False)
    rescored = rescore(model, out, lengths, nbest, RescoreConfig(reverse_weight=reverse_weight))
    for b, hypotheses in enumerate(rescored):
        for found in hypotheses:
            left, right = (
                float(model.attention_log_probs(out, lengths, [[found.tokens]] * 2, reverse)[b][0])
                for reverse in (False, True)
            )
            expected = (1 - reverse_weight) * left + reverse_weight * right
            assert found.attention == pytest.approx(expected, abs=1e-4)


def test_reading_right_to_left_without_such_a_decoder_is_a_clear_error() -> None:
    model, out, lengths, nbest = first_pass()
    with pytest.raises(ConfigError, match=r"right-to-left.*decoder\.reverse_layers"):
        rescore(model, out, lengths, nbest, RescoreConfig(reverse_weight=0.3))
