"""Attention and joint decoding against scoring every sequence, and against themselves in other batches."""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from raysr.decode.hypothesis import EMPTY, EOS, Hypothesis
from raysr.decode.joint import JointBeam, JointConfig
from raysr.decode.language_model import log_prob
from raysr.decode.ngram import Ngram
from raysr.model.config import DecoderConfig
from raysr.model.decoder import AttentionDecoder
from raysr.model.lstm_decoder import LstmDecoder
from raysr.model.transformer_decoder import TransformerDecoder
from tests.decode.test_ctc_prefix import posteriors, transcripts

DIM = 16
EXHAUSTIVE = {"beam": 400, "end_detection": False}


def decoder_of(vocab: int, seed: int = 0) -> AttentionDecoder[Any]:
    """Return a decoder of one kind or the other whose distributions are far from flat."""
    torch.manual_seed(seed)
    kind = LstmDecoder if seed % 2 else TransformerDecoder
    decoder = kind(DecoderConfig(layers=1, heads=2, feed_forward=16), DIM, vocab)
    with torch.no_grad():
        decoder.output.weight *= 3.0
    return decoder.eval().requires_grad_(False)


def small_lm(vocab: int) -> Ngram:
    rng = np.random.default_rng(5)
    spoken = [1, *range(3, vocab)]
    return Ngram.train([rng.choice(spoken, rng.integers(1, 6)).tolist() for _ in range(20)], 3, vocab)


@dataclass
class PairBonuses:
    """A bias: each utterance has a bonus (V, V) for every token after every other; a state is both in one."""

    bonuses: NDArray[np.float32]

    @property
    def starts(self) -> NDArray[np.int64]:
        return np.arange(len(self.bonuses)) * self.bonuses.shape[1]

    def score(
        self, states: NDArray[np.int64], tokens: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        rows = self.bonuses.reshape(-1, self.bonuses.shape[2])[states]
        return rows if tokens is None else np.take_along_axis(rows, tokens, axis=1)

    def advance(self, states: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        return states // self.bonuses.shape[1] * self.bonuses.shape[1] + tokens

    def eos(self, states: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.score(states)[:, EOS]

    def of(self, utterance: int, tokens: tuple[int, ...]) -> float:
        return sum(float(self.bonuses[utterance, a, b]) for a, b in itertools.pairwise([0, *tokens, EOS]))


@dataclass
class Case:
    """Utterances to decode, and the models."""

    memory: torch.Tensor
    lengths: torch.Tensor
    log_probs: torch.Tensor
    decoder: AttentionDecoder[Any]
    lm: Ngram | None
    bias: PairBonuses | None

    @classmethod
    def random(
        cls, seed: int, lengths: list[int], vocab: int, lm: bool = False, bias: bool = False
    ) -> "Case":
        generator = torch.Generator().manual_seed(seed)
        bonuses = np.random.default_rng(seed).normal(size=(len(lengths), vocab, vocab)).astype(np.float32)
        return cls(
            memory=torch.randn(len(lengths), max(lengths), DIM, generator=generator),
            lengths=torch.tensor(lengths),
            log_probs=posteriors(seed, len(lengths), max(lengths), vocab, 1.5),
            decoder=decoder_of(vocab, seed),
            lm=small_lm(vocab) if lm else None,
            bias=PairBonuses(bonuses) if bias else None,
        )

    def decode(self, config: JointConfig, n: int | None = None) -> list[list[Hypothesis]]:
        decoder = None if config.joint_ctc_weight == 1 else self.decoder
        beam = JointBeam(config, decoder, self.lm)
        return beam.decode(self.memory, self.lengths, self.log_probs, n, self.bias)

    def attention(self, utterance: int, tokens: tuple[int, ...]) -> float:
        """Return log p(tokens, eos) by teacher forcing, over the valid frames alone."""
        memory = self.memory[utterance : utterance + 1, : self.lengths[utterance]]
        valid = torch.ones(memory.shape[:2], dtype=torch.bool)
        logits = self.decoder(memory, valid, torch.tensor([[tokens]], dtype=torch.long))[0, 0]
        return float(logits.log_softmax(-1)[range(len(tokens) + 1), [*tokens, EOS]].double().sum())

    def enumerate(self, utterance: int, config: JointConfig) -> Iterator[Hypothesis]:
        """Yield every sequence up to the length limit that has a probability, with its scores."""
        weight, length = config.joint_ctc_weight, int(self.lengths[utterance])
        ctc = transcripts(self.log_probs[utterance, :length])
        limit = max(1, int(length * config.max_length_ratio))
        vocab = self.log_probs.shape[2]
        for size in range(min(limit, length) + 1 if weight else limit + 1):
            for tokens in itertools.product([1, *range(3, vocab)], repeat=size):
                if weight and tokens not in ctc:
                    continue
                parts = ctc.get(tokens, -np.inf), log_prob(self.lm, tokens) if self.lm else 0.0
                attention = self.attention(utterance, tokens) if weight < 1 else None
                score = weight * parts[0] if weight else 0.0
                score += (1 - weight) * (attention or 0.0)
                score += config.lm_weight * parts[1] + config.length_bonus * size
                score += self.bias.of(utterance, tokens) if self.bias else 0.0
                yield Hypothesis(tokens, score, *parts, attention, (), ())


def assert_same(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    """The same sequences with the same parts, in the same order wherever scores differ visibly."""
    by_tokens = {h.tokens: h for h in expected}
    assert {h.tokens for h in found} == set(by_tokens)
    assert len(found) == len(expected)
    for h in found:
        other = by_tokens[h.tokens]
        assert (h.score, h.ctc, h.lm) == pytest.approx((other.score, other.ctc, other.lm), abs=1e-4)
        assert h.attention == (other.attention and pytest.approx(other.attention, abs=1e-4))
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    assert [h.score for h in found] == pytest.approx(
        sorted((h.score for h in expected), reverse=True), abs=1e-4
    )


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    lengths=st.lists(st.integers(0, 4), max_size=2).map(lambda others: [*others, 5]),
    vocab=st.sampled_from([3, 4, 5]),
    with_lm=st.booleans(),
    with_bias=st.booleans(),
    length_bonus=st.sampled_from([-0.4, 0.0, 0.7]),
    ratio=st.sampled_from([0.5, 1.0]),
)
def test_a_beam_that_holds_everything_equals_enumeration(
    weight: float,
    seed: int,
    lengths: list[int],
    vocab: int,
    with_lm: bool,
    with_bias: bool,
    length_bonus: float,
    ratio: float,
) -> None:
    case = Case.random(seed, lengths, vocab, with_lm, with_bias)
    config = JointConfig(
        **EXHAUSTIVE,
        joint_ctc_weight=weight,
        lm_weight=0.6,
        length_bonus=length_bonus,
        max_length_ratio=ratio,
    )
    for b, found in enumerate(case.decode(config)):
        if lengths[b] == 0:
            assert found == [EMPTY]
        else:
            assert_same(found, list(case.enumerate(b, config)))


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_six_frames_equal_enumeration_too(weight: float) -> None:
    case = Case.random(3, [6], 4, lm=True, bias=True)
    config = JointConfig(**EXHAUSTIVE, joint_ctc_weight=weight)
    assert_same(case.decode(config)[0], list(case.enumerate(0, config)))


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    lengths=st.lists(st.integers(0, 25), min_size=1, max_size=4).filter(any),
    beam=st.integers(1, 8),
    pre_beam=st.sampled_from([0, 3]),
    end_detection=st.booleans(),
    with_bias=st.booleans(),
)
def test_a_batch_gives_what_each_utterance_gives_alone_and_parts_add_up(
    weight: float,
    seed: int,
    lengths: list[int],
    beam: int,
    pre_beam: int,
    end_detection: bool,
    with_bias: bool,
) -> None:
    case = Case.random(seed, lengths, 9, lm=True, bias=with_bias)
    config = JointConfig(
        beam=beam, pre_beam=pre_beam, joint_ctc_weight=weight, end_detection=end_detection, length_bonus=0.2
    )
    together = case.decode(config, n=4)
    for b, length in enumerate(lengths):
        if length == 0:
            assert together[b] == [EMPTY]
            continue
        bias = PairBonuses(case.bias.bonuses[b : b + 1]) if case.bias else None
        alone = Case(
            case.memory[b : b + 1, :length],
            case.lengths[b : b + 1],
            case.log_probs[b : b + 1, :length],
            case.decoder,
            case.lm,
            bias,
        )
        assert_same(alone.decode(config, n=4)[0], together[b])
        for h in together[b]:
            score = (weight * h.ctc if weight else 0.0) + (1 - weight) * (h.attention or 0.0)
            score += 0.5 * h.lm + 0.2 * len(h.tokens)
            score += case.bias.of(b, h.tokens) if case.bias else 0.0
            assert h.score == pytest.approx(score, abs=1e-6)
            assert h.lm == pytest.approx(log_prob(small_lm(9), h.tokens), abs=1e-4)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000), weight=st.sampled_from([0.0, 0.3, 1.0]), bonus=st.sampled_from([0.0, 1.5])
)
def test_stopping_where_nothing_open_can_win_keeps_the_best(seed: int, weight: float, bonus: float) -> None:
    case = Case.random(seed, [5], 4, lm=True)
    config = JointConfig(**EXHAUSTIVE, joint_ctc_weight=weight, length_bonus=bonus)
    every = sorted(case.enumerate(0, config), key=lambda h: -h.score)
    for n in (1, 3):
        assert_same(case.decode(config, n)[0], every[:n])


def test_a_pre_beam_of_one_leaves_the_attention_decoder_the_choice() -> None:
    case = Case.random(1, [12], 9)
    found = case.decode(JointConfig(beam=20, pre_beam=1, end_detection=False))[0]
    longest = max((h.tokens for h in found), key=len)
    assert len(found) == len(longest) + 1 > 3
    for size, token in enumerate(longest):
        assert longest[:size] in {h.tokens for h in found}
        before = torch.tensor([[longest[:size]]], dtype=torch.long)
        logits = case.decoder(case.memory, torch.ones(1, 12, dtype=torch.bool), before)[0, 0, -1]
        logits[[0, EOS]] = -torch.inf
        assert token == int(logits.argmax())


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_a_decoder_that_loops_ends_at_the_limit(weight: float) -> None:
    case = Case.random(0, [40, 10], 6)
    case.decoder.output.bias[4] += 200.0
    config = JointConfig(beam=5, joint_ctc_weight=weight, max_length_ratio=0.5, end_detection=False)
    for nbest, limit in zip(case.decode(config, n=30), (20, 5), strict=True):
        assert max((h.tokens for h in nbest), key=len) == (4,) * limit
        assert {h.ended: len(h.tokens) == limit for h in nbest} == {True: False, False: True}


def peaked(case: Case, texts: list[tuple[int, ...]]) -> None:
    """Give the CTC posteriors of ``case`` one sure token in every second frame."""
    logits = torch.zeros_like(case.log_probs)
    for b, text in enumerate(texts):
        frames = [token for t in text for token in (t, 0)]
        frames += [0] * (case.log_probs.shape[1] - len(frames))
        logits[b, range(len(frames)), frames] = 14.0
    case.log_probs = logits.log_softmax(-1)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_end_detection_changes_nothing_where_posteriors_are_sure(seed: int) -> None:
    rng = np.random.default_rng(seed)
    texts = [tuple(rng.integers(3, 9, rng.integers(0, 10)).tolist()) for _ in range(3)]
    case = Case.random(seed, [40, 30, 20], 9)
    peaked(case, texts)
    longest = []
    for end_detection in (True, False):
        config = JointConfig(beam=6, joint_ctc_weight=0.7, end_detection=end_detection)
        found = case.decode(config, n=1000)
        assert [nbest[0].tokens for nbest in found] == texts
        longest.append(max(len(h.tokens) for nbest in found for h in nbest))
    assert longest[0] < 18 < longest[1]


def test_what_is_missing_is_said() -> None:
    memory, lengths = torch.zeros(1, 3, DIM), torch.tensor([3])
    with pytest.raises(ValueError, match="attention decoder"):
        JointBeam(JointConfig(), None)
    with pytest.raises(ValueError, match="posteriors"):
        JointBeam(JointConfig(), decoder_of(5)).decode(memory, lengths)


def test_attention_alone_needs_no_posteriors() -> None:
    case = Case.random(4, [7, 5], 6)
    config = JointConfig(beam=5, joint_ctc_weight=0.0)
    without = JointBeam(config, case.decoder).decode(case.memory, case.lengths)
    for found, expected in zip(without, case.decode(config), strict=True):
        assert_same(found, [dataclasses.replace(h, ctc=0.0) for h in expected])


def test_no_utterances_give_no_hypotheses() -> None:
    beam = JointBeam(JointConfig(), decoder_of(5))
    assert beam.decode(torch.zeros(0, 3, DIM), torch.zeros(0, dtype=torch.long), torch.zeros(0, 3, 5)) == []
    assert beam.decode(torch.zeros(2, 0, DIM), torch.tensor([0, 0]), torch.zeros(2, 0, 5)) == [[EMPTY]] * 2
