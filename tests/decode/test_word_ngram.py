"""The word n-gram, asked token by token, against its formula in dictionaries; and what it is for."""

import math
import pickle
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.decode import word_ngram as module
from raysr.decode.language_model import log_prob
from raysr.decode.lexicon import FIRST_WORD, NO_WORD, Lexicon
from raysr.decode.mixture import Mixture
from raysr.decode.ngram import Ngram
from raysr.decode.word_ngram import WordNgram
from raysr.errors import ConfigError, PoolError

EOS = 2
VOCAB = 10
BEGINS = [3, 4]  # "▁" alone, and a piece that begins a word
WITHIN = [5, 6, 7, 8, 9]

word = st.tuples(st.sampled_from(BEGINS), st.lists(st.sampled_from(WITHIN), max_size=3).map(tuple)).map(
    lambda parts: (parts[0], *parts[1])
)
lexicons = st.lists(word, min_size=1, max_size=8, unique=True)
history = st.lists(st.sampled_from([1, *BEGINS, *WITHIN]), max_size=9)


def built(words: list[tuple[int, ...]], seed: int, escape: float = 0.1) -> WordNgram:
    rng = np.random.default_rng(seed)
    size = len(words) + FIRST_WORD
    ids = [NO_WORD, *range(FIRST_WORD, size)]

    def sentences(choices: list[int]) -> list[list[int]]:
        return [rng.choice(choices, rng.integers(1, 6)).tolist() for _ in range(12)]

    tokens = Ngram.train(sentences([*BEGINS, *WITHIN]), 3, VOCAB)
    mixture = Mixture([Ngram.train(sentences(ids), order, size) for order in (3, 2)], [0.6, 0.4])
    return WordNgram(tokens, mixture, Lexicon(words), BEGINS, escape)


class Plain:
    """The formula of the module, with strings of tokens for states and sums over all words."""

    def __init__(self, lm: WordNgram) -> None:
        self.lm, self.words = lm, lm.lexicon.spellings
        self.number = {spelling: FIRST_WORD + k for k, spelling in enumerate(self.words)}

    def after(self, read: list[int]) -> dict[int, float]:
        lm, said, within = self.lm, [], None
        for token in read:
            if token in BEGINS:
                said += [within] if within is not None else []
                within = ()
            within = (*(within or ()), token)
        by_token = np.exp(lm.tokens.score(self.walk(lm.tokens, read))[0].astype(float))
        probs: dict[int, float] = defaultdict(float)
        begun = [w for w in self.words if within is not None and w[: len(within)] == within]
        share = lm.escape if begun or within is None else 1.0
        for token in [*WITHIN, 1]:
            probs[token] = share * by_token[token]
        end = share * (by_token[BEGINS].sum() + by_token[EOS])
        if within is None:
            end += 1 - lm.escape
        elif begun:
            p = self.word_probs(said)
            whole = sum(p[w] for w in begun)
            for w in begun:
                if len(w) > len(within):
                    probs[w[len(within)]] += (1 - lm.escape) * p[w] / whole
            end += (1 - lm.escape) * (p[within] / whole if within in begun else 0.0)
        said = [*said, within] if within is not None else said
        stops = float(np.exp(lm.words.eos(self.walk(lm.words, self.numbers(said))))[0])
        probs[EOS] = end * stops
        p = self.word_probs(said)
        for token in BEGINS:
            of_words = sum(p[w] for w in self.words if w[0] == token)
            of_tokens = by_token[token] / by_token[BEGINS].sum()
            probs[token] = end * (1 - stops) * ((1 - lm.escape) * of_words + lm.escape * of_tokens)
        return probs

    def numbers(self, said: list[tuple[int, ...]]) -> list[int]:
        return [self.number.get(w, NO_WORD) for w in said]

    def word_probs(self, said: list[tuple[int, ...]]) -> dict[tuple[int, ...], float]:
        row = np.exp(self.lm.words.score(self.walk(self.lm.words, self.numbers(said)))[0].astype(float))
        total = sum(row[n] for n in self.number.values())
        return {w: row[n] / total for w, n in self.number.items()}

    @staticmethod
    def walk(lm: Ngram | Mixture | WordNgram, read: list[int]) -> np.ndarray:
        state = np.asarray([lm.start()])
        for token in read:
            state = lm.advance(state, np.asarray([token]))
        return state


@settings(max_examples=60, deadline=None)
@given(words=lexicons, seed=st.integers(0, 9), read=history)
def test_it_equals_its_formula_and_sums_to_one(
    words: list[tuple[int, ...]], seed: int, read: list[int]
) -> None:
    lm = built(words, seed)
    state = Plain.walk(lm, read)
    scores = lm.score(state)[0]
    expected = Plain(lm).after(read)
    assert np.exp(scores[1:]) == pytest.approx([expected[t] for t in range(1, VOCAB)], rel=1e-4)
    assert np.isneginf(scores[0])
    assert np.exp(scores.astype(float)).sum() == pytest.approx(1, abs=1e-5)
    assert lm.eos(state)[0] == scores[EOS]
    assert lm.score(state, np.asarray([[7, 3]]))[0].tolist() == scores[[7, 3]].tolist()


@settings(max_examples=20, deadline=None)
@given(words=lexicons, reads=st.lists(history, min_size=1, max_size=6))
def test_many_states_at_once_are_answered_as_one_by_one_however_little_is_kept(
    words: list[tuple[int, ...]], reads: list[list[int]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MASS_BYTES", 0)
        patch.setattr(module, "FEWEST_ROWS", 1)
        lm = built(words, 1)
        states = np.concatenate([Plain.walk(lm, read) for read in reads])
        together = lm.score(states)
    for state, row in zip(states, together, strict=True):
        assert np.allclose(built(words, 1).score(state[None])[0][1:], row[1:], rtol=1e-6)


@settings(max_examples=10, deadline=None)
@given(words=lexicons, read=history)
def test_a_saved_model_comes_back(
    tmp_path_factory: pytest.TempPathFactory, words: list[tuple[int, ...]], read: list[int]
) -> None:
    path = tmp_path_factory.mktemp("lm") / "lm.npz"
    lm = built(words, 2)
    lm.save(path)
    for copy in (WordNgram.load(path), pickle.loads(pickle.dumps(lm))):
        assert np.array_equal(copy.score(Plain.walk(copy, read)), lm.score(Plain.walk(lm, read)))
        copy.save(path.with_name("again.npz"))
        assert path.with_name("again.npz").read_bytes() == path.read_bytes()


def test_a_word_is_far_likelier_than_its_misspelling_and_no_word_is_impossible() -> None:
    monday, mounday, unheard = (3, 5, 6, 7), (3, 5, 8, 6, 7), (3, 9, 9, 9, 9)
    text = [[*monday], [*monday, 3, 5]] * 3
    tokens = Ngram.train(text, 3, VOCAB)
    words = Ngram.train([[FIRST_WORD], [FIRST_WORD, FIRST_WORD + 1]] * 3, 2, FIRST_WORD + 2)
    lm = WordNgram(tokens, Mixture([words], [1.0]), Lexicon([monday, (3, 5)]), [3], 0.02)

    ahead = log_prob(lm, monday) - log_prob(lm, mounday)
    assert ahead > log_prob(tokens, monday) - log_prob(tokens, mounday) + 1
    assert math.isfinite(log_prob(lm, unheard))


def test_parts_that_do_not_belong_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = built([(3, 5), (4,)], 1)
    with pytest.raises(ValueError, match="in the lexicon"):
        WordNgram(lm.tokens, lm.words, Lexicon([(3,)]), BEGINS, 0.1)
    for words in ([(5, 3), (4,)], [(3, 4), (4,)]):
        with pytest.raises(ValueError, match=r"begin with one of \[3, 4\]"):
            WordNgram(lm.tokens, lm.words, Lexicon(words), BEGINS, 0.1)
    for escape in (0.0, 1.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            WordNgram(lm.tokens, lm.words, lm.lexicon, BEGINS, escape)
    monkeypatch.setattr(Mixture, "__len__", lambda self: 1 << 60)
    with pytest.raises(ConfigError, match="less text"):
        WordNgram(lm.tokens, lm.words, lm.lexicon, BEGINS, 0.1)


@pytest.mark.parametrize("keep", [0, 200, -40])
def test_a_damaged_file_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "lm.npz"
    built([(3, 5), (4,)], 1).save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PoolError, match=r"lm\.npz: not a language model"):
        WordNgram.load(path)
    with pytest.raises(PoolError, match=r"none\.npz"):
        WordNgram.load(tmp_path / "none.npz")
