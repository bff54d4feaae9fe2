"""Code-switched text is counted in characters where a script has no spaces, in words elsewhere."""

from hypothesis import given
from hypothesis import strategies as st

from raysr.evaluate.mixed import mixed_counts, units
from raysr.evaluate.wer import ErrorCounts, score
from raysr.text.normalise import normalise


def test_characters_of_scripts_without_spaces_and_words_of_the_others() -> None:
    assert units("我想要 a cup of 咖啡 ok吗") == ["我", "想", "要", "a", "cup", "of", "咖", "啡", "ok", "吗"]
    assert units("コーヒー を 飲む") == list("コーヒーを飲む")
    assert units("한국어 문장") == ["한국어", "문장"], "Korean has spaces"


def test_marks_stay_with_their_letters() -> None:
    assert units("न\u0947 e\u0301te\u0301") == ["न\u0947", "e\u0301te\u0301"]
    assert units("\u0e01\u0e34\u0e19") == ["\u0e01\u0e34", "\u0e19"]


def test_a_wrong_character_and_a_wrong_word_count_alike() -> None:
    (row,) = score(["u"], ["我要 coffee"], ["我想 tea"])
    assert mixed_counts(row) == ErrorCounts(1, 2, 0, 0)
    assert row.words == ErrorCounts(0, 2, 0, 0)


def test_it_goes_by_the_costs_of_the_words() -> None:
    (row,) = score(["u"], ["一 二 三 四 五"], ["四 五 六 七 八"])
    assert mixed_counts(row) == ErrorCounts(0, 5, 0, 0)
    assert mixed_counts(row, "nist") == ErrorCounts(2, 0, 3, 3)


@given(st.text())
def test_no_letter_is_lost(text: str) -> None:
    text = normalise(text)
    assert "".join(units(text)) == "".join(text.split())
    assert all(units(text))


@given(st.lists(st.tuples(*[st.lists(st.sampled_from(["an", "old", "cat"]), max_size=6).map(" ".join)] * 2)))
def test_of_words_alone_it_is_the_word_error_rate(texts: list[tuple[str, str]]) -> None:
    for reference, hypothesis in texts:
        (row,) = score(["u"], [reference], [hypothesis])
        assert mixed_counts(row) == row.words
