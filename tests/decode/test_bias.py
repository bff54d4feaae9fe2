"""Boosted phrases against counting their occurrences, in the automaton and in the beam."""

import itertools
import math
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.decode.bias import ContextBias, Phrase, bias_of
from raysr.decode.language_model import log_prob
from raysr.decode.prefix_beam import PrefixBeam, PrefixBeamConfig
from raysr.errors import ConfigError
from raysr.text.tokeniser import Tokeniser, TokeniserConfig
from tests.decode.test_prefix_beam import enumerate_alignments, posteriors, small_lm, total

BEGINS = [False, True, False, False]
phrases = st.lists(
    st.builds(
        Phrase,
        st.tuples(st.just(1), st.integers(1, 3), st.integers(1, 3)).flatmap(
            lambda t: st.integers(1, 3).map(lambda n: t[:n])
        ),
        st.sampled_from([0.25, 1.0, 2.0]),
    ),
    max_size=4,
    unique_by=lambda phrase: phrase.tokens,
)


def counted(tokens: Sequence[int], phrases: Sequence[Phrase]) -> float:
    """Add the boosts up where a phrase is found and a word ends after it."""
    found = 0.0
    for phrase, begin in itertools.product(phrases, range(len(tokens))):
        end = begin + len(phrase.tokens)
        if tuple(tokens[begin:end]) == phrase.tokens and (end == len(tokens) or BEGINS[tokens[end]]):
            found += phrase.boost * len(phrase.tokens)
    return found


@settings(max_examples=200, deadline=None)
@given(own=st.lists(phrases, min_size=1, max_size=3), tokens=st.lists(st.integers(1, 3), max_size=9))
def test_bonuses_add_up_to_the_phrases_that_occur(own: list[list[Phrase]], tokens: list[int]) -> None:
    bias = ContextBias(own, BEGINS)
    state, gained = bias.starts, np.zeros(len(own))
    for token in tokens:
        each = np.full((len(own), 1), token)
        step = bias.score(state, each)[:, 0]
        assert (step <= bias.tables.most + 1e-6).all()
        assert np.allclose(bias.score(state)[:, token], step)
        gained += step
        state = bias.advance(state, each[:, 0])
    expected = [counted(tokens, p) for p in own]
    assert gained + bias.eos(state) == pytest.approx(expected, abs=1e-4)


def followed(tokens: Sequence[int], phrases: Sequence[Phrase]) -> tuple[int, ...]:
    """Return the longest end of the tokens that a phrase begins with."""
    ends = (tuple(tokens[begin:]) for begin in range(len(tokens) + 1))
    return next(end for end in ends if any(p.tokens[: len(end)] == end for p in phrases) or not end)


def repaid(tokens: tuple[int, ...], phrases: Sequence[Phrase], costs: Sequence[float]) -> float:
    """Add the costs of tokens up within phrases, and take them back where a phrase was not said to its end."""
    total = owed = 0.0
    for n in range(len(tokens)):
        before, after = followed(tokens[:n], phrases), followed(tokens[: n + 1], phrases)
        ended = BEGINS[tokens[n]] and any(before[-len(p.tokens) :] == p.tokens for p in phrases)
        if not ended and len(after) <= len(before):
            total -= owed
        if ended or len(after) <= len(before):
            owed = 0.0
        if after:
            total, owed = total + costs[n], owed + costs[n]
    last = followed(tokens, phrases)
    return total if any(last[-len(p.tokens) :] == p.tokens for p in phrases) else total - owed


@settings(max_examples=25, deadline=None)
@given(own=phrases, seed=st.integers(0, 10_000), frames=st.integers(1, 6))
def test_within_a_phrase_the_language_model_is_repaid(own: list[Phrase], seed: int, frames: int) -> None:
    log_probs, lm = posteriors(seed, 1, frames, 4), small_lm(4)
    config = PrefixBeamConfig(beam=1500, blank_skip=1.0, lm_weight=0.7, phrase_lm_share=0.6)
    (found,) = PrefixBeam(config, lm, ContextBias([own], BEGINS)).decode(log_probs, torch.tensor([frames]))
    for h in found:
        state, costs = np.asarray([lm.start()]), []
        for token in h.tokens:
            costs.append(-0.6 * 0.7 * float(lm.score(state)[0, token]))
            state = lm.advance(state, np.asarray([token]))
        assert h.bias == pytest.approx(counted(h.tokens, own) + repaid(h.tokens, own, costs), abs=1e-4)
        assert h.score == pytest.approx(h.ctc + 0.7 * h.lm + h.bias, abs=1e-9)
    assert len(found) == len(enumerate_alignments(log_probs[0]))


@pytest.mark.parametrize("with_lm", [False, True])
@settings(max_examples=12, deadline=None)
@given(own=phrases, other=phrases, seed=st.integers(0, 10_000), frames=st.integers(1, 6))
def test_an_unpruned_beam_ranks_as_enumeration_does(
    own: list[Phrase], other: list[Phrase], seed: int, frames: int, with_lm: bool
) -> None:
    log_probs = posteriors(seed, 2, frames, 4)
    lm = small_lm(4) if with_lm else None
    config = PrefixBeamConfig(beam=1500, blank_skip=1.0, lm_weight=0.7, length_bonus=0.3, phrase_lm_share=0.0)
    found = PrefixBeam(config, lm, ContextBias([own, other], BEGINS)).decode(
        log_probs, torch.tensor([frames, frames])
    )
    for hypotheses, frame, chosen in zip(found, log_probs, (own, other), strict=True):
        expected = {
            tokens: total(a)
            + (0.7 * log_prob(lm, tokens) if lm else 0.0)
            + 0.3 * len(tokens)
            + counted(tokens, chosen)
            for tokens, a in enumerate_alignments(frame).items()
        }
        assert {h.tokens: pytest.approx(h.score, abs=1e-4) for h in hypotheses} == expected
        assert all(h.bias == pytest.approx(counted(h.tokens, chosen), abs=1e-4) for h in hypotheses)


@settings(max_examples=30, deadline=None)
@given(own=phrases, seed=st.integers(0, 10_000), cut=st.integers(0, 20), with_lm=st.booleans())
def test_a_pruned_beam_gives_the_same_in_any_split_and_batch(
    own: list[Phrase], seed: int, cut: int, with_lm: bool
) -> None:
    config, lm = PrefixBeamConfig(beam=5), small_lm(4) if with_lm else None
    log_probs = posteriors(seed, 2, 20, 4, peaky=2.0)
    together = PrefixBeam(config, lm, ContextBias([[], own], BEGINS)).decode(
        log_probs, torch.tensor([20, 20])
    )
    alone = PrefixBeam(config, lm, ContextBias([own], BEGINS))
    state = alone.start(1)
    for piece in (log_probs[1:, :cut], log_probs[1:, cut:]):
        alone.advance(state, piece)
    assert alone.nbest(state, alone.places, final=True)[0] == together[1]
    assert PrefixBeam(config, lm).decode(log_probs[:1], torch.tensor([20]))[0] == together[0]


def test_a_phrase_is_heard_where_it_was_a_near_miss_and_only_as_whole_words() -> None:
    tokeniser = Tokeniser.train(["anna hannah ann and"], TokeniserConfig(kind="char"))
    log_probs = torch.full((1, 12, tokeniser.vocab_size), -12.0)
    for t, (token, other) in enumerate(zip(tokeniser.encode("and"), tokeniser.encode("ann"), strict=True)):
        log_probs[0, 2 * t, token], log_probs[0, 2 * t, other] = math.log(0.7), math.log(0.3)
        log_probs[0, 2 * t + 1, 0] = 0.0
    log_probs[0, 8:, 0] = 0.0
    for wanted, heard in (({}, "and"), ({"Ann": 1.0}, "ann"), ({"anna": 1.0}, "and")):
        bias = bias_of([wanted], tokeniser)
        ((best,),) = PrefixBeam(PrefixBeamConfig(), None, bias).decode(
            log_probs.log_softmax(-1), torch.tensor([12]), n=1
        )
        assert tokeniser.decode(best.tokens) == heard


@pytest.mark.parametrize(
    ("phrase", "boost", "message"),
    [("zoë", 1.0, "never learned to write z ë"), ("!", 1.0, "no word in '!'"), ("ann", 0.0, "above 0")],
)
def test_a_phrase_that_cannot_be_used_is_named(phrase: str, boost: float, message: str) -> None:
    tokeniser = Tokeniser.train(["anna o"], TokeniserConfig(kind="char"))
    with pytest.raises(ConfigError, match=message):
        bias_of([{phrase: boost}], tokeniser)


@pytest.mark.parametrize("seed", range(20))
def test_phrases_that_come_to_nothing_crowd_nothing_out(seed: int) -> None:
    random, log_probs = Random(seed), posteriors(seed, 1, 40, 6, peaky=1.0)
    log_probs[:, :, 5] = -50.0  # the last token of all phrases is never heard
    begun = [[random.choice((1, 2)), *random.choices(range(1, 5), k=4)] for _ in range(60)]
    expected = [Phrase((*tokens, 5), 4.0) for tokens in begun]
    config, lm = PrefixBeamConfig(beam=4, lm_weight=0.5), small_lm(6)
    bias = ContextBias([expected], [False, True, True, False, False, False])
    (plain,) = PrefixBeam(config, lm).decode(log_probs, torch.tensor([40]), 1)
    (biased,) = PrefixBeam(config, lm, bias).decode(log_probs, torch.tensor([40]), 1)
    # nearly: what more prefixes are kept adds to the sums of others; without places of their own 13 to 39 are lost
    assert biased[0].score > plain[0].score - 0.1
