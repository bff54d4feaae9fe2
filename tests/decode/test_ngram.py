"""The n-gram model against a plain implementation of the textbook formula, and its laws for any text."""

import gzip
import itertools
import math
import pickle
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysr.decode.language_model import log_prob
from raysr.decode.ngram import Ngram
from raysr.errors import PoolError

VOCAB = 9
EOS = 2
sentences = st.lists(st.lists(st.integers(1, VOCAB - 1).filter(lambda t: t != EOS), max_size=8), max_size=12)


class PlainKneserNey:
    """Interpolated modified Kneser-Ney after Chen & Goodman (1998), a dictionary lookup at a time."""

    def __init__(self, text: list[list[int]], order: int) -> None:
        raw: Counter[tuple[object, ...]] = Counter()
        for sentence in text:
            padded = ["<s>", *sentence, EOS]
            for n in range(1, order + 1):
                raw.update(tuple(padded[i : i + n]) for i in range(len(padded) - n + 1))
        top = max(len(gram) for gram in raw)
        before: defaultdict[tuple[object, ...], set[object]] = defaultdict(set)
        for gram in raw:
            before[gram[1:]].add(gram[0])
        self.counts = {
            gram: count if len(gram) == top or gram[0] == "<s>" else len(before[gram])
            for gram, count in raw.items()
            if gram != ("<s>",)
        }
        self.order = top
        self.discounts = {n: self._discounts(n) for n in range(1, top + 1)}

    def _discounts(self, n: int) -> list[float]:
        of = Counter(count for gram, count in self.counts.items() if len(gram) == n)
        if min(of[1], of[2], of[3]) == 0:
            return [0.0, 0.5, 1.0, 1.5]
        y = of[1] / (of[1] + 2 * of[2])
        found = [0.0, *(j - (j + 1) * y * of[j + 1] / of[j] for j in (1, 2, 3))]
        return found if all(0 < d <= j for j, d in enumerate(found[1:], 1)) else [0.0, 0.5, 1.0, 1.5]

    def prob(self, history: tuple[object, ...], token: int) -> float:
        history = history[-(self.order - 1) :] if self.order > 1 else ()
        lower = self.prob(history[1:], token) if history else 1.0 / (VOCAB - 1)
        following = [c for gram, c in self.counts.items() if gram[:-1] == history]
        if not following:
            return lower
        discounts = self.discounts[len(history) + 1]
        count = self.counts.get((*history, token), 0)
        held_back = sum(discounts[min(c, 3)] for c in following)
        return (count - discounts[min(count, 3)] + held_back * lower) / sum(following)


def walk(lm: Ngram, tokens: list[int]) -> np.ndarray:
    state = np.asarray([lm.start()])
    for token in tokens:
        state = lm.advance(state, np.asarray([token]))
    return state


@settings(max_examples=40, deadline=None)
@given(text=sentences.filter(bool), order=st.integers(1, 4), history=st.lists(st.integers(1, 8), max_size=5))
def test_probabilities_equal_the_formula(text: list[list[int]], order: int, history: list[int]) -> None:
    lm, plain = Ngram.train(text, order, VOCAB), PlainKneserNey(text, order)
    scores = lm.score(walk(lm, history))[0]
    expected = [plain.prob(("<s>", *history), token) for token in range(1, VOCAB)]
    assert np.exp(scores[1:]) == pytest.approx(expected, rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(text=sentences, order=st.integers(1, 6))
def test_probabilities_sum_to_one_in_every_state_and_the_blank_has_none(
    text: list[list[int]], order: int
) -> None:
    lm = Ngram.train(text, order, VOCAB)
    scores = lm.score(np.arange(len(lm)))
    assert np.all(np.isneginf(scores[:, 0]))
    assert np.all(np.isfinite(scores[:, 1:]))
    assert np.exp(scores.astype(np.float64)).sum(axis=1) == pytest.approx(np.ones(len(lm)), abs=1e-5)
    assert lm.eos(np.arange(len(lm))) == pytest.approx(scores[:, EOS])


@settings(max_examples=20, deadline=None)
@given(text=sentences, order=st.integers(1, 5))
def test_asking_for_a_few_tokens_equals_asking_for_all(text: list[list[int]], order: int) -> None:
    lm = Ngram.train(text, order, VOCAB)
    states = np.arange(len(lm))
    few = np.tile(np.asarray([3, 1, 7]), (len(states), 1))
    assert np.allclose(lm.score(states)[:, [3, 1, 7]], lm.score(states, few), atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(text=sentences, order=st.integers(1, 5), suffix=st.sampled_from([".arpa", ".arpa.gz"]))
def test_a_saved_model_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, text: list[list[int]], order: int, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("lm") / f"lm{suffix}"
    lm = Ngram.train(text, order, VOCAB)
    lm.save(path)
    states = np.arange(len(lm))
    for copy in (Ngram.load(path), pickle.loads(pickle.dumps(lm))):
        assert np.array_equal(copy.score(states), lm.score(states))
        assert copy.start() == lm.start()
        copy.save(path.with_name(f"again{suffix}"))
        assert path.with_name(f"again{suffix}").read_bytes() == path.read_bytes()


def test_an_arpa_file_follows_the_format(tmp_path: Path) -> None:
    lm = Ngram.train([[3, 4, 3], [3, 5]], 3, VOCAB)
    lm.save(tmp_path / "lm.arpa")
    text = (tmp_path / "lm.arpa").read_text()
    counted = {
        int(n): int(c) for n, c in (row[6:].split("=") for row in text.splitlines() if row[:6] == "ngram ")
    }
    sections = {
        n: text.split(f"\\{n}-grams:\n")[1].split("\n\n")[0].splitlines() for n in range(1, len(counted) + 1)
    }
    assert {n: len(rows) for n, rows in sections.items()} == counted
    assert text.rstrip().endswith("\\end\\")
    explicit = dict(reversed(row.split("\t")[:2]) for row in itertools.chain(*sections.values()))
    assert float(explicit["<s> 3"]) * math.log(10) == pytest.approx(
        float(lm.score(np.asarray([lm.start()]))[0, 3]), abs=1e-5
    )
    assert float(explicit["<s>"]) == -99
    assert "</s>" in explicit
    assert "0" not in explicit


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda text: text.replace("\\end\\", ""), None),
        (lambda text: text.replace("\t3\t", "\tthree\t", 1), "line"),
        (lambda text: "hello\n" + text, "line 1"),
        (lambda text: "", "line 1"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(
    tmp_path: Path, damage: Callable[[str], str], line: str | None
) -> None:
    path = tmp_path / "lm.arpa.gz"
    Ngram.train([[3, 4, 3]], 2, VOCAB).save(path)
    path.write_bytes(gzip.compress(damage(gzip.decompress(path.read_bytes()).decode()).encode()))
    with pytest.raises(PoolError, match=r"lm\.arpa\.gz") as raised:
        Ngram.load(path)
    assert line is None or line in str(raised.value)


def test_a_cut_or_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa.gz"
    Ngram.train([[3, 4, 3]], 2, VOCAB).save(path)
    path.write_bytes(path.read_bytes()[:40])
    for broken in (path, tmp_path / "none.arpa"):
        with pytest.raises(PoolError, match=broken.name):
            Ngram.load(broken)


def test_tokens_outside_the_vocabulary_are_refused() -> None:
    for token in (0, VOCAB):
        with pytest.raises(ValueError, match="between 1 and 8"):
            Ngram.train([[3, token]], 2, VOCAB)


def test_text_like_the_training_text_is_likelier_than_other_text() -> None:
    lm = Ngram.train([[3, 4, 5, 6]] * 5 + [[3, 4, 7]], 3, VOCAB)
    like, unlike, other = (log_prob(lm, tokens) for tokens in ([3, 4, 5, 6], [3, 4, 7], [7, 4, 3]))
    assert like > unlike > other > -math.inf
