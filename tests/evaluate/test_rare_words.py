"""Recall and precision of wanted words, and the errors of the others."""

from hypothesis import given
from hypothesis import strategies as st

from raysr.evaluate.rare_words import RareWords, rare_words, seldom
from raysr.evaluate.wer import score, total

WORDS = st.lists(st.sampled_from(["olga", "priya", "met", "and", "the"]), max_size=6).map(" ".join)
PAIRS = st.lists(st.tuples(WORDS.filter(bool), WORDS), min_size=1, max_size=4)


def test_a_name_counts_where_it_was_said_and_nowhere_else() -> None:
    found = rare_words(["olga met priya today"], ["priya met priya today"], {"olga", "priya"})
    assert found == RareWords(said=2, recalled=1, claimed=2, others=2, errors=0)
    assert rare_words(["we met today"], ["we met olga"], {"olga"}) == RareWords(0, 0, 1, 3, 1)


def test_without_a_wanted_word_there_is_no_recall() -> None:
    found = rare_words(["we met"], ["we met"], {"olga"})
    assert found.recall is None
    assert found.precision is None
    assert found.other_wer == 0


@given(PAIRS)
def test_nothing_wanted_makes_it_the_word_error_rate(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = zip(*pairs, strict=True)
    found = rare_words(references, hypotheses, set())
    words = total(row.words for row in score([str(n) for n in range(len(pairs))], references, hypotheses))
    assert (found.errors, found.others) == (words.errors, words.reference)


@given(PAIRS, PAIRS)
def test_counts_add_up(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> None:
    wanted = {"olga", "priya"}

    def count(pairs: list[tuple[str, str]]) -> RareWords:
        references, hypotheses = zip(*pairs, strict=True)
        return rare_words(references, hypotheses, wanted)

    assert count(one + other) == count(one) + count(other)


@given(PAIRS)
def test_every_said_word_is_wanted_or_another(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = zip(*pairs, strict=True)
    found = rare_words(references, hypotheses, {"olga", "priya"})
    assert found.said + found.others == sum(len(text.split()) for text in references)
    assert found.recalled <= min(found.said, found.claimed)
    words = total(row.words for row in score([str(n) for n in range(len(pairs))], references, hypotheses))
    assert found.said - found.recalled + found.errors == words.errors


def test_a_name_of_several_words_counts_once_and_as_a_whole() -> None:
    wanted = {"new york", "york", "olga"}
    assert rare_words(["in new york city"], ["in new york city"], wanted) == RareWords(1, 1, 1, 2, 0)
    assert rare_words(["in new york city"], ["in old york city"], wanted) == RareWords(1, 0, 1, 2, 0)
    assert rare_words(["new york"], ["new big york"], wanted) == RareWords(1, 0, 1, 0, 1), "torn apart"
    longer = {"anna lee", "smith", "doctor anna lee smith"}
    assert rare_words(["anna lee smith"], ["doctor anna lee smith"], longer) == RareWords(2, 0, 1, 0, 1)


@given(PAIRS, st.sets(st.sampled_from(["olga", "met priya", "and the", "olga met priya"])))
def test_no_name_is_recalled_that_was_not_said(pairs: list[tuple[str, str]], wanted: set[str]) -> None:
    references, hypotheses = zip(*pairs, strict=True)
    found = rare_words(references, hypotheses, wanted)
    assert 0 <= found.recalled <= min(found.said, found.claimed)
    assert found.others >= 0
    same = rare_words(references, references, wanted)
    assert (same.said, same.recalled, same.claimed, same.errors) == (found.said, found.said, found.said, 0)


def test_seldom_words_are_those_that_training_hardly_has() -> None:
    training = ["the cat sat", "the cat"]
    assert seldom(training, 0, ["the dog sat"]) == {"dog"}
    assert seldom(training, 1, ["the dog sat"]) == {"dog", "sat"}
