"""Streams are decoded into the same finals however they are cut, and into captions that come to rest."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.decode.calibration import Calibration
from raysr.decode.endpoint import EndpointConfig
from raysr.decode.ngram import Ngram
from raysr.decode.recognise import DecodeConfig, recognise, recognise_masked
from raysr.decode.segments import Event, Final, Partial, SegmentDecoder
from raysr.decode.words import text_of, words_of
from raysr.errors import ConfigError
from raysr.model.config import DecoderConfig, EncoderConfig, ModelConfig
from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser, TokeniserConfig

TEXTS = [
    "the meeting is at ten",
    "please send the notes to ann",
    "we meet again at nine",
    "thank you all",
] * 3
TOKENISER = Tokeniser.train(TEXTS, TokeniserConfig(kind="char"))
VOCAB = TOKENISER.vocab_size
LM = Ngram.train([TOKENISER.encode(text) for text in TEXTS], 5, VOCAB)
ENDPOINT = EndpointConfig(pause=0.4, max_segment=6.0, long_segment=4.0, max_silence=2.0)
FIRST_PASS = ("greedy", "beam", "rescore")
METHODS = (*FIRST_PASS, "attention", "joint")
SPELLING = tuple(method for method in METHODS if method != "attention")
"""Those that listen to CTC: the attention decoder here is untrained."""


def config(method: str) -> DecodeConfig:
    options = {
        "phrase_lm_share": 0.0,
        "beam": 6,
        "nbest": 4,
        "settle": 0.8,
        "joint_ctc_weight": 0.9,
        "max_length_ratio": 0.6,
    }
    return DecodeConfig.parse({"method": method, "endpoint": ENDPOINT, **options})


def tiny_model() -> AsrModel:
    torch.manual_seed(1)
    encoder = EncoderConfig(dim=32, layers=1, heads=2, feed_forward=16, kernel=3)
    model = AsrModel(ModelConfig(encoder=encoder, decoder=DecoderConfig(heads=2, feed_forward=16)), VOCAB)
    return model.eval()


def spelling_model() -> AsrModel:
    """Return a model whose CTC head reads off the token that an encoder frame points to."""
    model = tiny_model()
    assert model.ctc is not None
    (linear,) = [m for m in model.ctc.modules() if isinstance(m, torch.nn.Linear)]
    with torch.no_grad():
        linear.weight.zero_()
        linear.weight[:, :VOCAB] = torch.eye(VOCAB)
        linear.bias.zero_()
    return model


MODEL = tiny_model()
SPELLER = spelling_model()


def spoken(texts: list[str], seed: int = 0, pause: int = 15, noise: float = 1.0) -> torch.Tensor:
    """Return encoder frames (T, D) in which the texts are spelt, two frames a token, pauses in between."""
    generator = torch.Generator().manual_seed(seed)
    tokens = [0, 0]
    for text in texts:
        tokens += [t for token in TOKENISER.encode(text) for t in (token, 0)] + [0] * pause
    frames = torch.zeros(len(tokens), 32)
    frames[range(len(tokens)), tokens] = 9.0
    return frames + noise * torch.randn(frames.shape, generator=generator)


def run(method: str, pieces: list[torch.Tensor]) -> list[Event]:
    decoder = SegmentDecoder(SPELLER, config(method), LM, TOKENISER)
    return [event for piece in pieces for event in decoder.push(piece)] + decoder.finish()


def finals(events: list[Event]) -> list[Final]:
    return [event for event in events if isinstance(event, Final)]


@pytest.mark.parametrize("method", SPELLING)
def test_pauses_cut_a_stream_into_its_sentences(method: str) -> None:
    found = finals(run(method, [spoken(TEXTS[:3])]))
    assert [final.text for final in found] == TEXTS[:3]
    assert [final.segment for final in found] == [0, 1, 2]
    assert [final.cause for final in found] == ["endpoint"] * 3
    for final in found:
        assert " ".join(word.text for word in final.words) == final.text
        times = [t for word in final.words for t in (word.start, word.end)]
        assert times == sorted(times)
        assert final.start <= times[0] < times[-1] <= final.end
        assert all(0.9 < word.confidence <= 1 for word in final.words)
        assert text_of(TOKENISER, final.nbest[0].tokens) == final.text
        assert (final.nbest[0].attention is not None) == (method in ("rescore", "joint"))


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(0, 220), max_size=12))
def test_any_split_gives_exactly_the_same_finals(method: str, seed: int, cuts: list[int]) -> None:
    frames = spoken(TEXTS[:3], seed, noise=3.0)
    pieces = [frames[a:b] for a, b in itertools.pairwise([0, *sorted(cuts), len(frames)])]
    assert finals(run(method, pieces)) == finals(run(method, [frames]))


@pytest.mark.parametrize("method", FIRST_PASS)
def test_a_stable_prefix_is_never_rewritten_and_comes_to_rest(method: str) -> None:
    frames = spoken(TEXTS[:2], noise=3.0)
    segments = itertools.groupby(run(method, list(frames.split(3))), key=lambda event: event.segment)
    for _, events in segments:
        *partials, final = list(events)
        assert isinstance(final, Final)
        stable = ""
        for partial in partials:
            assert isinstance(partial, Partial)
            assert (
                " ".join(word.text for word in partial.words) == (partial.stable + partial.volatile).strip()
            )
            times = [t for word in partial.words for t in (word.start, word.end)]
            assert partial.start <= times[0]
            assert times == sorted(times)
            assert times[-1] <= partial.end
            assert partial.stable.startswith(stable)
            stable = partial.stable
        assert final.text.startswith(stable)
        assert len(stable) > len(final.text) / 3


@pytest.mark.parametrize("method", ["attention", "joint"])
def test_captions_of_segments_that_are_decoded_anew_promise_nothing(method: str) -> None:
    *partials, final = run(method, list(spoken(TEXTS[:1], pause=0).split(3)))
    assert isinstance(final, Final)
    captions = [partial.volatile for partial in partials if isinstance(partial, Partial)]
    assert len(captions) == len(partials) > 5
    assert captions[-1] == TEXTS[0]
    assert not any(partial.stable for partial in partials if isinstance(partial, Partial))


def test_finalize_closes_the_segment_and_the_stream_goes_on() -> None:
    decoder = SegmentDecoder(SPELLER, config("beam"), LM, TOKENISER)
    decoder.push(spoken(["thank you"], pause=0))
    (first,) = finals(decoder.finalize())
    assert (first.text, first.cause) == ("thank you", "finalize")
    assert decoder.finalize() == []
    decoder.push(spoken(["all"], pause=0))
    (second,) = finals(decoder.finish())
    assert (second.text, second.cause, second.segment) == ("all", "stop", 1)
    assert second.words[0].start >= first.end


@pytest.mark.parametrize("method", METHODS)
def test_silence_and_nothing_at_all_say_nothing(method: str) -> None:
    silence = torch.zeros(300, 32)
    silence[:, 0] = 9.0
    assert run(method, [silence]) == []
    assert run(method, [silence[:0]]) == []


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_gives_what_each_utterance_gives_alone(method: str) -> None:
    generator = torch.Generator().manual_seed(0)
    features = [10 * torch.randn(n, 80, generator=generator) for n in (90, 0, 300, 3, 161)]
    options = config(method).model_copy(update={"batch_size": 2})
    together = recognise(MODEL, TOKENISER, features, options, LM)
    for f, nbest in zip(features, together, strict=True):
        (alone,) = recognise(MODEL, TOKENISER, [f], options, LM)
        assert [h.tokens for h in alone] == [h.tokens for h in nbest]
        assert [h.score for h in alone] == pytest.approx([h.score for h in nbest], abs=1e-3)
    assert together[1][0].tokens == ()


def test_recognising_leaves_a_model_in_training_as_it_was() -> None:
    model = tiny_model().train()
    recognise(model, TOKENISER, [torch.randn(60, 80)], config("greedy"))
    assert model.training
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_a_masked_recording_gives_the_finals_of_its_encoder_frames(method: str) -> None:
    features = 10 * torch.randn(400, 80, generator=torch.Generator().manual_seed(3))
    events = recognise_masked(MODEL, TOKENISER, LM, features, 4, 2, 1, config(method))
    with torch.inference_mode():
        encoded = MODEL.encode(features[None], torch.tensor([400]), 4, 2, 1)
    decoder = SegmentDecoder(MODEL, config(method), LM, TOKENISER)
    pushed = [e for piece in encoded.out[0].split(4) for e in decoder.push(piece)] + decoder.finish()
    assert finals(pushed) == finals(events)
    assert finals(events)


@pytest.mark.parametrize("method", ["beam", "rescore", "joint"])
def test_phrases_are_boosted_for_their_utterance_alone(method: str) -> None:
    features = [5 * torch.randn(n, 80, generator=torch.Generator().manual_seed(n)) for n in (200, 180)]
    plain = recognise(MODEL, TOKENISER, features, config(method), LM)
    boosted = recognise(MODEL, TOKENISER, features, config(method), LM, phrases=[{"Ann": 9.0}, {}])
    times = text_of(TOKENISER, boosted[0][0].tokens).split().count("ann")
    assert times > text_of(TOKENISER, plain[0][0].tokens).split().count("ann")
    assert boosted[0][0].bias == pytest.approx(times * 9.0 * len(TOKENISER.encode("ann")), abs=1e-3)
    assert [h.tokens for h in boosted[1]] == [h.tokens for h in plain[1]]
    events = recognise_masked(MODEL, TOKENISER, LM, features[0], 4, 2, 1, config(method), {"ann": 9.0})
    assert "ann" in " ".join(final.text for final in finals(events)).split()


def test_greedy_decoding_refuses_phrases() -> None:
    with pytest.raises(ConfigError, match="greedy decoding cannot boost"):
        recognise(MODEL, TOKENISER, [torch.randn(60, 80)], config("greedy"), phrases=[{"ann": 1.0}])
    with pytest.raises(ConfigError, match="greedy decoding cannot boost"):
        SegmentDecoder(MODEL, config("greedy"), LM, TOKENISER, {"ann": 1.0})


def test_parts_that_do_not_belong_together_are_refused() -> None:
    other = Ngram.train([[3, 4]], 2, VOCAB + 1)
    with pytest.raises(ConfigError, match="language model"):
        recognise(MODEL, TOKENISER, [torch.randn(60, 80)], config("beam"), other)


def test_words_have_the_times_of_their_tokens() -> None:
    (hypothesis,) = recognise(MODEL, TOKENISER, [10 * torch.randn(300, 80)], config("greedy"))[0]
    words = words_of(TOKENISER, hypothesis, frame_seconds=0.04, offset=1.0)
    assert " ".join(word.text for word in words) == text_of(TOKENISER, hypothesis.tokens)
    frames = {round((t - 1.0) / 0.04) for word in words for t in (word.start, word.end - 0.04)}
    assert frames <= set(hypothesis.times)


@pytest.mark.parametrize("method", METHODS)
def test_finals_have_the_confidence_that_the_calibration_gives(method: str) -> None:
    calibration = Calibration(bias=-1.0, agreement=0.2, acoustic=0.3, utterance=0.1, length=0.4)
    calibrated = config(method).model_copy(update={"calibration": calibration})
    decoder = SegmentDecoder(SPELLER, calibrated, LM, TOKENISER)
    found = finals(decoder.push(spoken(TEXTS[:3], noise=3.0)) + decoder.finish())
    assert [final.text for final in found] == [
        final.text for final in finals(run(method, [spoken(TEXTS[:3], noise=3.0)]))
    ]
    for final in found:
        expected = calibration.confidences(TOKENISER, final.nbest)
        assert [word.confidence for word in final.words] == expected
        assert final.confidence == pytest.approx(sum(expected) / len(expected))
