"""The language model as a rescorer: what it comes to where the beam holds everything, and in streams."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.decode.decode_config import DecodeConfig
from raysr.decode.hypothesis import Hypothesis
from raysr.decode.language_model import LanguageModel, log_prob, log_probs
from raysr.decode.lm_pass import PassBeam, add_lm
from raysr.decode.recognise import recognise
from raysr.decode.segments import Final, SegmentDecoder
from raysr.errors import ConfigError
from tests.decode.test_prefix_beam import posteriors, small_lm, small_word_lm
from tests.decode.test_segments import ENDPOINT, LM, SPELLER, TEXTS, TOKENISER, spoken

MODELS = {"tokens": small_lm(4), "words": small_word_lm()}


def decode_config(**options: object) -> DecodeConfig:
    return DecodeConfig.parse({"beam": 2000, "token_beam": 4, "blank_skip": 1.0, "lm_weight": 0.7, **options})


def parts(nbest: list[Hypothesis]) -> dict[tuple[int, ...], tuple[float, ...]]:
    return {h.tokens: (h.score, h.ctc, h.lm, h.bias) for h in nbest}


@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), frames=st.integers(1, 5), bonus=st.floats(-1, 1))
def test_with_a_beam_that_holds_everything_both_passes_agree(
    kind: str, seed: int, frames: int, bonus: float
) -> None:
    lm: LanguageModel = MODELS[kind]
    log_posteriors = posteriors(seed, 3, frames, 4)
    lengths = torch.tensor([frames, max(1, frames - 1), 1])
    first, second = (
        PassBeam(decode_config(lm_pass=name, length_bonus=bonus), lm).decode(log_posteriors, lengths, 2000)
        for name in ("first", "second")
    )
    for one, other in zip(first, second, strict=True):
        assert parts(one).keys() == parts(other).keys()
        for tokens, expected in parts(one).items():
            assert parts(other)[tokens] == pytest.approx(expected, abs=1e-3)
        scores = [h.score for h in other]
        assert scores == sorted(scores, reverse=True)
        assert other[0].score == pytest.approx(one[0].score, abs=1e-3)


@given(
    sentences=st.lists(st.lists(st.integers(1, 3).filter(lambda t: t != 2), max_size=6), max_size=6),
    kind=st.sampled_from(sorted(MODELS)),
)
@settings(max_examples=30, deadline=None)
def test_sentences_of_any_length_are_scored_at_once_as_one_by_one(
    sentences: list[list[int]], kind: str
) -> None:
    lm: LanguageModel = MODELS[kind]
    expected = []
    for tokens in sentences:
        state, total = np.asarray([lm.start()]), 0.0
        for token in tokens:
            total += float(lm.score(state)[0, token])
            state = lm.advance(state, np.asarray([token]))
        expected.append(total + float(lm.eos(state)[0]))
    assert log_probs(lm, sentences) == pytest.approx(expected, abs=1e-4)


def test_the_second_pass_sees_what_the_beam_kept_beyond_the_nbest() -> None:
    log_posteriors, lengths = posteriors(3, 1, 5, 4), torch.tensor([5])
    (alone,) = PassBeam(decode_config(), None).decode(log_posteriors, lengths, 2000)
    (best,) = PassBeam(decode_config(lm_pass="second", lm_weight=4.0), MODELS["tokens"]).decode(
        log_posteriors, lengths, 1
    )
    ranked = [h.tokens for h in alone]
    assert ranked.index(best[0].tokens) > 0
    expected = max(alone, key=lambda h: h.score + 4.0 * log_prob(MODELS["tokens"], h.tokens))
    assert best[0].tokens == expected.tokens


def test_scores_of_several_utterances_are_added_to_their_own() -> None:
    empty = Hypothesis((), -1.0, -1.0, 0.0, None, (), ())
    longer = Hypothesis((3, 1), -1.5, -1.5, 0.0, None, (0, 1), (0.5, 0.5))
    found = add_lm([[empty, longer], [], [longer]], MODELS["tokens"], 0.5)
    assert [len(row) for row in found] == [2, 0, 1]
    for h in [*found[0], *found[2]]:
        assert h.lm == pytest.approx(log_prob(MODELS["tokens"], h.tokens))
        assert h.score == pytest.approx(h.ctc + 0.5 * h.lm)


@pytest.mark.parametrize("method", ["beam", "rescore"])
def test_a_segment_is_scored_with_the_model_when_it_closes(method: str) -> None:
    options = {"method": method, "lm_pass": "second", "endpoint": ENDPOINT, "beam": 6, "nbest": 4}
    config = DecodeConfig.parse(options)
    frames = spoken(TEXTS[:2], noise=3.0)
    decoder = SegmentDecoder(SPELLER, config, LM, TOKENISER)
    events = list(itertools.chain(*(decoder.push(piece) for piece in frames.split(7)), decoder.finish()))
    finals = [event for event in events if isinstance(event, Final)]
    assert finals
    for h in itertools.chain(*(final.nbest for final in finals)):
        assert h.lm == pytest.approx(log_prob(LM, h.tokens), abs=1e-3)
        if method == "beam":
            assert h.score == pytest.approx(h.ctc + config.lm_weight * h.lm, abs=1e-3)
        else:
            assert h.attention is not None


def test_whole_utterances_and_phrases_go_through_both_passes() -> None:
    features = [torch.randn(80, 80, generator=torch.Generator().manual_seed(n)) for n in range(2)]
    config = DecodeConfig.parse({"lm_pass": "second", "beam": 8, "nbest": 3})
    phrases = [{"the meeting": 1.0}, {"thank you": 2.0}]
    for h in itertools.chain(*recognise(SPELLER, TOKENISER, features, config, LM, phrases=phrases)):
        assert h.lm == pytest.approx(log_prob(LM, h.tokens), abs=1e-3)
        assert h.score == pytest.approx(h.ctc + h.bias + config.lm_weight * h.lm, abs=1e-3)


@pytest.mark.parametrize("method", ["attention", "joint"])
def test_what_decodes_in_one_pass_has_no_second(method: str) -> None:
    with pytest.raises(ConfigError, match=f"lm_pass: {method} decodes in one pass"):
        DecodeConfig.parse({"method": method, "lm_pass": "second"})
