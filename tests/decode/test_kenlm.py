"""KenLM's answers by state and token, equal to those of the n-gram whose ARPA file it reads.

The module is asked where it is installed. A plain reader that answers the same calls is asked everywhere.
"""

import pickle
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.decode import kenlm
from raysr.decode.kenlm import KenLm
from raysr.decode.language_model import log_prob, log_probs
from raysr.decode.ngram import Ngram
from raysr.decode.prefix_beam import PrefixBeam, PrefixBeamConfig
from raysr.errors import ConfigError, PoolError
from tests.decode import plain_arpa
from tests.decode.test_prefix_beam import posteriors

VOCAB, ORDER = 7, 3
PIECES = ["<blank>", "<unk>", "<eos>", *map(str, range(3, VOCAB))]
RNG = np.random.default_rng(4)
TEXT = [RNG.choice([1, 3, 4, 5, 6], RNG.integers(1, 7)).tolist() for _ in range(30)]
NGRAM = Ngram.train(TEXT, ORDER, VOCAB)
sentences = st.lists(st.sampled_from([1, 3, 4, 5, 6]), max_size=8)


@pytest.fixture(scope="module", params=["plain", *(["kenlm"] if find_spec("kenlm") else [])])
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KenLm]:
    path = tmp_path_factory.mktemp("kenlm") / "lm.arpa"
    NGRAM.save(path)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "plain":
            patch.setitem(sys.modules, "kenlm", plain_arpa)
        yield KenLm(path, PIECES)


@settings(max_examples=50, deadline=None)
@given(batch=st.lists(sentences, min_size=1, max_size=5), tokens=st.lists(st.integers(0, 6), max_size=4))
def test_it_says_of_every_token_after_every_history_what_the_ngram_says(
    lm: KenLm, batch: list[list[int]], tokens: list[int]
) -> None:
    states = np.full(len(batch), lm.start())
    expected = np.full(len(batch), NGRAM.start())
    for n in range(max(map(len, batch)) + 1):
        few = np.tile(np.asarray(tokens, np.int64), (len(batch), 1))
        assert np.allclose(lm.score(states, few), NGRAM.score(expected, few), atol=1e-4)
        assert np.allclose(lm.score(states), NGRAM.score(expected), atol=1e-4)
        assert lm.eos(states) == pytest.approx(NGRAM.eos(expected), abs=1e-4)
        here = np.asarray([row[n] if n < len(row) else 3 for row in batch])
        states, expected = lm.advance(states, here), NGRAM.advance(expected, here)


def test_the_beam_finds_with_it_what_it_finds_with_the_ngram(lm: KenLm) -> None:
    config = PrefixBeamConfig(beam=8, blank_skip=1.0)
    log_posteriors, lengths = posteriors(2, 3, 12, VOCAB), torch.tensor([12, 9, 4])
    for found, expected in zip(
        PrefixBeam(config, lm).decode(log_posteriors, lengths),
        PrefixBeam(config, NGRAM).decode(log_posteriors, lengths),
        strict=True,
    ):
        assert [h.tokens for h in found] == [h.tokens for h in expected]
        assert [h.score for h in found] == pytest.approx([h.score for h in expected], abs=1e-3)


def test_what_was_forgotten_is_answered_again(lm: KenLm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kenlm, "ANSWER_BYTES", 0)
    monkeypatch.setattr(kenlm, "FEWEST_ROWS", 2)
    forgetful = pickle.loads(pickle.dumps(lm))
    assert forgetful.start() == lm.start()
    for tokens in [*TEXT, *TEXT]:
        assert log_prob(forgetful, tokens) == pytest.approx(log_prob(lm, tokens), abs=1e-5)
    assert np.allclose(log_probs(forgetful, TEXT), log_probs(NGRAM, TEXT), atol=1e-3)
    assert len(forgetful._row) <= len(TEXT)


def test_pieces_that_it_lacks_share_the_unknown_words_probability(lm: KenLm) -> None:
    larger = KenLm(lm.path, [*PIECES, "seven", "eight"])
    scores, before = larger.score(np.asarray([larger.start()]))[0], lm.score(np.asarray([lm.start()]))[0]
    assert np.exp(scores[[1, 7, 8]]) == pytest.approx(np.full(3, np.exp(before[1]) / 3), rel=1e-4)
    assert np.exp(scores).sum() == pytest.approx(1, abs=1e-4)
    assert scores[:7] == pytest.approx([before[0], scores[1], *before[2:]], abs=1e-5)


def test_histories_that_no_number_holds_are_refused(lm: KenLm, tmp_path: Path) -> None:
    Ngram.train([[3] * 30], 24, VOCAB).save(tmp_path / "lm.arpa")
    with pytest.raises((ConfigError, PoolError), match=r"lm\.arpa: "):
        KenLm(tmp_path / "lm.arpa", PIECES)


def test_a_file_over_other_words_or_none_is_named(lm: KenLm, tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"lm\.arpa: none of its words"):
        KenLm(lm.path, ["<blank>", "<unk>", "<eos>", "zebra"])
    with pytest.raises(PoolError, match=r"gone\.bin"):
        KenLm(tmp_path / "gone.bin", PIECES)


def test_without_the_module_one_is_told_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(ConfigError, match=r"pip install kenlm"):
        KenLm(tmp_path / "lm.bin", PIECES)
