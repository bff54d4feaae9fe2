"""CTC prefix scores against enumerating every alignment."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.decode.ctc_prefix import CtcPrefixScorer, PrefixState
from raysr.decode.hypothesis import EOS

VOCAB = 4


def posteriors(seed: int, batch: int, frames: int, vocab: int, peaky: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, frames, vocab, generator=generator, dtype=torch.float64)
    return torch.log_softmax(peaky * logits, dim=-1)


def transcripts(log_probs: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Return log p of every transcript (tokens, eos as an ordinary one) of posteriors (T, V)."""
    found: dict[tuple[int, ...], list[float]] = {}
    rows = log_probs.tolist()
    for alignment in itertools.product(range(log_probs.shape[1]), repeat=len(rows)):
        folded = tuple(token for token, _ in itertools.groupby(alignment) if token != 0)
        found.setdefault(folded, []).append(sum(row[t] for row, t in zip(rows, alignment, strict=True)))
    return {tokens: float(np.logaddexp.reduce(scores)) for tokens, scores in found.items()}


def prefix_log_prob(found: dict[tuple[int, ...], float], prefix: tuple[int, ...]) -> float:
    scores = [score for tokens, score in found.items() if tokens[: len(prefix)] == prefix]
    return float(np.logaddexp.reduce(scores)) if scores else -np.inf


def grow(scorer: CtcPrefixScorer, prefixes: torch.Tensor) -> PrefixState:
    """Return the state of prefixes (B, N, U), token by token."""
    state, batch = scorer.start(), torch.zeros(prefixes.shape[:2], dtype=torch.long)
    for step in range(prefixes.shape[2]):
        source = batch if step == 0 else torch.arange(prefixes.shape[1]).expand_as(batch)
        state = scorer.advance(state, source, prefixes[:, :, step])
    return state


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=3).filter(any),
    peaky=st.sampled_from([0.3, 1.0, 5.0, 30.0]),
    size=st.integers(0, 3),
)
def test_scores_are_sums_over_all_alignments(seed: int, lengths: list[int], peaky: float, size: int) -> None:
    log_probs = posteriors(seed, len(lengths), max(lengths), VOCAB, peaky)
    scorer = CtcPrefixScorer(log_probs, torch.tensor(lengths))
    prefixes = list(itertools.product((1, 3), repeat=size))
    tokens = torch.tensor(prefixes, dtype=torch.long)  # (N, size)
    state = grow(scorer, tokens.expand(len(lengths), -1, -1))
    scores = scorer.score(state)
    for b, length in enumerate(lengths):
        found = transcripts(log_probs[b, :length])
        for n, prefix in enumerate(prefixes):
            if np.isneginf(prefix_log_prob(found, prefix)):
                assert float(scores[b, n, [1, 3]].max()) == -np.inf
                continue
            for token in (1, 3):
                expected = prefix_log_prob(found, (*prefix, token))
                assert float(scores[b, n, token]) == pytest.approx(expected, abs=1e-9)
            assert float(scores[b, n, EOS]) == pytest.approx(found[prefix], abs=1e-9)
            assert float(scores[b, n, 0]) == -np.inf


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), peaky=st.sampled_from([1.0, 8.0]), size=st.integers(1, 30))
def test_long_utterances_agree_with_the_ctc_loss_and_any_choice_of_tokens_with_all(
    seed: int, peaky: float, size: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([300, 61, 180])
    log_probs = posteriors(seed, 3, 300, 20, peaky)
    prefixes = torch.randint(3, 20, (3, 2, size), generator=generator)
    scorer = CtcPrefixScorer(log_probs, lengths)
    state = grow(scorer, prefixes)
    scores = scorer.score(state)
    loss = F.ctc_loss(
        log_probs.repeat_interleave(2, dim=0).transpose(0, 1),
        prefixes.flatten(0, 1),
        lengths.repeat_interleave(2),
        torch.full((6,), size),
        reduction="none",
    )
    assert scores[..., EOS].flatten().tolist() == pytest.approx((-loss).tolist(), rel=1e-9)
    some = torch.randint(0, 20, (3, 2, 7), generator=generator)
    torch.testing.assert_close(scorer.score(state, some), scores.gather(2, some), rtol=1e-12, atol=1e-9)


def test_a_posterior_of_zero_and_impossible_prefixes_give_no_nan() -> None:
    log_probs = torch.full((1, 3, VOCAB), -torch.inf)
    log_probs[0, range(3), [1, 0, 3]] = 0.0
    scorer = CtcPrefixScorer(log_probs, torch.tensor([3]))
    state = grow(scorer, torch.tensor([[[1, 3], [3, 1], [1, 1]]]))
    scores = scorer.score(state)
    assert not scores.isnan().any()
    assert float(scores[0, 0, EOS]) == 0.0
    assert scores[0, 1:, EOS].max() < -500


def test_selected_utterances_go_on_as_before() -> None:
    lengths, kept = torch.tensor([9, 4, 7]), torch.tensor([0, 2])
    scorer = CtcPrefixScorer(posteriors(0, 3, 9, 6, 1.0), lengths)
    state = grow(scorer, torch.tensor([[[1, 3], [4, 4]]]).expand(3, -1, -1))
    before = scorer.score(state)[kept]
    scorer.select(kept)
    torch.testing.assert_close(scorer.score(state.select(kept)), before)
