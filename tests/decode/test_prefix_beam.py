"""The prefix beam against enumerating every alignment, and against itself in other batches and splits."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.textbook_beam import TextbookBeam
from raysr.decode.hypothesis import common_prefix
from raysr.decode.language_model import LanguageModel, log_prob
from raysr.decode.lexicon import Lexicon
from raysr.decode.mixture import Mixture
from raysr.decode.ngram import Ngram
from raysr.decode.prefix_beam import PrefixBeam, PrefixBeamConfig
from raysr.decode.word_ngram import WordNgram


def posteriors(seed: int, batch: int, frames: int, vocab: int, peaky: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(peaky * torch.randn(batch, frames, vocab, generator=generator), dim=-1)


def small_lm(vocab: int) -> Ngram:
    rng = np.random.default_rng(5)
    return Ngram.train([rng.integers(1, vocab, rng.integers(1, 6)).tolist() for _ in range(20)], 3, vocab)


def small_word_lm() -> WordNgram:
    """Words that begin with token 1, of a vocabulary of four."""
    words = Mixture([Ngram.train([[3, 4], [4], [5, 4, 3]], 2, 6)], [1.0])
    return WordNgram(small_lm(4), words, Lexicon([(1,), (1, 3), (1, 3, 2)]), [1], 0.1)


def fold(alignment: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(token for token, _ in itertools.groupby(alignment) if token != 0)


def enumerate_alignments(
    log_probs: torch.Tensor,
) -> dict[tuple[int, ...], list[tuple[float, tuple[int, ...]]]]:
    frames, vocab = log_probs.shape
    found: dict[tuple[int, ...], list[tuple[float, tuple[int, ...]]]] = {}
    for alignment in itertools.product(range(vocab), repeat=frames):
        score = sum(float(log_probs[t, token]) for t, token in enumerate(alignment))
        found.setdefault(fold(alignment), []).append((score, alignment))
    return found


def total(alignments: list[tuple[float, tuple[int, ...]]]) -> float:
    return float(np.logaddexp.reduce([score for score, _ in alignments]))


@pytest.mark.parametrize(("frames", "vocab"), [(1, 3), (3, 4), (5, 3), (6, 3)])
@pytest.mark.parametrize("seed", range(4))
def test_an_unpruned_beam_sums_every_alignment(seed: int, frames: int, vocab: int) -> None:
    log_probs = posteriors(seed, 1, frames, vocab)
    expected = {tokens: total(a) for tokens, a in enumerate_alignments(log_probs[0]).items()}
    beam = PrefixBeam(PrefixBeamConfig(beam=len(expected) + 5, blank_skip=1.0))
    (found,) = beam.decode(log_probs, torch.tensor([frames]))
    assert {h.tokens: pytest.approx(h.ctc, abs=1e-5) for h in found} == expected
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    assert sum(math.exp(h.ctc) for h in found) == pytest.approx(1.0, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    frames=st.integers(1, 30),
    vocab=st.integers(4, 30),
    beam=st.integers(1, 12),
    peaky=st.sampled_from([0.3, 1.0, 3.0]),
    with_lm=st.booleans(),
)
def test_a_pruned_beam_finds_what_the_textbook_search_does(
    seed: int, frames: int, vocab: int, beam: int, peaky: float, with_lm: bool
) -> None:
    log_probs = posteriors(seed, 1, frames, vocab, peaky)
    lm = small_lm(vocab) if with_lm else None
    config = PrefixBeamConfig(beam=beam, token_beam=vocab, blank_skip=1.0, lm_weight=0.5)
    ((ours,),) = PrefixBeam(config, lm).decode(log_probs, torch.tensor([frames]), n=1)
    tokens, score = TextbookBeam(beam, vocab, lm, 0.5).decode(log_probs[0].numpy())
    assert (ours.tokens, ours.score) == (tokens, pytest.approx(score, abs=1e-4))


@pytest.mark.parametrize("lm", [small_lm(4), small_word_lm()], ids=["tokens", "words"])
@pytest.mark.parametrize("seed", range(4))
def test_an_unpruned_beam_with_a_language_model_ranks_as_enumeration_does(
    seed: int, lm: LanguageModel
) -> None:
    log_probs = posteriors(seed, 1, 5, 4)
    config = PrefixBeamConfig(beam=700, blank_skip=1.0, lm_weight=0.7, length_bonus=0.3)
    expected = {
        tokens: total(a) + 0.7 * log_prob(lm, tokens) + 0.3 * len(tokens)
        for tokens, a in enumerate_alignments(log_probs[0]).items()
    }
    (found,) = PrefixBeam(config, lm).decode(log_probs, torch.tensor([5]))
    assert {h.tokens: pytest.approx(h.score, abs=1e-4) for h in found} == expected
    for hypothesis in found:
        assert hypothesis.lm == pytest.approx(log_prob(lm, hypothesis.tokens), abs=1e-4)
        parts = hypothesis.ctc + 0.7 * hypothesis.lm + 0.3 * len(hypothesis.tokens)
        assert hypothesis.score == pytest.approx(parts, abs=1e-9)
    assert found[0].tokens == max(expected, key=lambda tokens: expected[tokens])


@pytest.mark.parametrize("seed", range(6))
def test_times_and_confidences_are_the_peaks_of_the_best_alignment(seed: int) -> None:
    log_probs = posteriors(seed, 1, 6, 3)
    (found,) = PrefixBeam(PrefixBeamConfig(beam=200, blank_skip=1.0)).decode(log_probs, torch.tensor([6]))
    alignments = enumerate_alignments(log_probs[0])
    for hypothesis in found:
        _, best = max(alignments[hypothesis.tokens])
        runs = [list(run) for token, run in itertools.groupby(range(6), key=lambda t: best[t]) if token]
        peaks = [max(run, key=lambda t: float(log_probs[0, t, best[t]])) for run in runs]
        assert list(hypothesis.times) == peaks
        posterior = [math.exp(float(log_probs[0, t, best[t]])) for t in peaks]
        assert list(hypothesis.confidences) == pytest.approx(posterior, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    cuts=st.lists(st.integers(0, 24), max_size=6),
    skip=st.sampled_from([1.0, 0.6]),
    token_beam=st.sampled_from([3, 40]),
)
def test_any_split_and_any_batch_give_the_same_result(
    seed: int, cuts: list[int], skip: float, token_beam: int
) -> None:
    config = PrefixBeamConfig(beam=6, blank_skip=skip, token_beam=token_beam)
    beam, log_probs = PrefixBeam(config, small_lm(7)), posteriors(seed, 4, 24, 7, peaky=2.0)
    lengths = torch.tensor([24, 0, 11, 19])
    whole = beam.decode(log_probs, lengths)
    for b, length in enumerate(lengths.tolist()):
        state = beam.start(1)
        for begin, end in itertools.pairwise([0, *sorted(min(c, length) for c in cuts), length]):
            state = beam.advance(state, log_probs[b : b + 1, begin:end])
        assert beam.nbest(state, 6, final=True)[0] == whole[b]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_later_frames_never_change_the_stable_prefix(seed: int) -> None:
    beam = PrefixBeam(PrefixBeamConfig(beam=5), small_lm(6))
    log_probs, state, before = posteriors(seed, 1, 40, 6, peaky=8.0), beam.start(1), ()
    for t in range(40):
        (stable,) = beam.stable_prefix(beam.advance(state, log_probs[:, t : t + 1]))
        assert stable[: len(before)] == before
        assert stable == common_prefix([h.tokens for h in beam.nbest(state, 5, final=False)[0]])
        before = stable
    assert all(h.tokens[: len(before)] == before for h in beam.nbest(state, 5, final=True)[0])


def test_settling_makes_all_tokens_before_a_frame_stable_and_keeps_the_best() -> None:
    beam = PrefixBeam(PrefixBeamConfig(beam=8), small_lm(12))
    state = beam.advance(beam.start(2), posteriors(2, 2, 60, 12, peaky=5.0))
    before = [n[0] for n in beam.nbest(state, 1, final=False)]
    assert any(len(s) < len(h.tokens) - 10 for s, h in zip(beam.stable_prefix(state), before, strict=True))
    beam.settle(state, 40)
    for stable, hypothesis in zip(beam.stable_prefix(state), before, strict=True):
        settled = sum(time < 40 for time in hypothesis.times)
        assert stable[:settled] == hypothesis.tokens[:settled]
        assert settled > 10
    assert [n[0] for n in beam.nbest(state, 1, final=False)] == before


def test_skipping_sure_blanks_changes_scores_by_no_more_than_the_mass_it_leaves_out() -> None:
    log_probs = posteriors(3, 8, 50, 10, peaky=3.0)
    log_probs[:, ::2, 0] += 12.0
    log_probs = torch.log_softmax(log_probs, dim=-1)
    lengths = torch.full((8,), 50)
    exact = PrefixBeam(PrefixBeamConfig(beam=16, blank_skip=1.0)).decode(log_probs, lengths, n=1)
    skipped = PrefixBeam(PrefixBeamConfig(beam=16, blank_skip=0.999)).decode(log_probs, lengths, n=1)
    assert [n[0].tokens for n in skipped] == [n[0].tokens for n in exact]
    for a, b in zip(exact, skipped, strict=True):
        assert b[0].ctc == pytest.approx(a[0].ctc, abs=50 * 0.001)


def test_a_pruned_beam_finds_what_greedy_finds_where_posteriors_are_sure() -> None:
    log_probs = posteriors(1, 3, 30, 12, peaky=30.0)
    found = PrefixBeam(PrefixBeamConfig(beam=4)).decode(log_probs, torch.tensor([30, 30, 30]), n=1)
    assert [n[0].tokens for n in found] == [fold(tuple(row)) for row in log_probs.argmax(-1).tolist()]
