"""One written form: what is spoken alike is written alike, and normalising twice changes nothing."""

import re
import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raysr.text.normalise import normalise

SPOKEN = {
    "2nd": "second",
    "the 21st, 100th and 1,000th": "the twenty first one hundredth and one thousandth",
    "3.5": "three point five",
    "0.05": "zero point zero five",
    ".5": "point five",
    "version 1.2.3": "version one point two point three",
    "$5": "five dollars",
    "$1": "one dollar",
    "$5.50": "five dollars and fifty cents",
    "$0.99": "ninety nine cents",
    "£1.01": "one pound and one penny",
    "$3.5 million": "three point five million dollars",
    "5 €": "five euros",
    "10%": "ten percent",
    "ten per cent": "ten percent",
    "1,200": "one thousand two hundred",
    "1984": "nineteen eighty four",
    "1905": "nineteen oh five",
    "1900": "nineteen hundred",
    "2005": "two thousand five",
    "2024": "twenty twenty four",
    "1066": "one thousand sixty six",
    "the 1990s and '90s": "the nineteen nineties and nineties",
    "007": "zero zero seven",
    "10:30 p.m.": "ten thirty pm",
    "3 PM": "three pm",
    "at 3:00": "at three o'clock",
    "-5 degrees": "minus five degrees",
    "5-10": "five ten",
    "b2b mp3 5G": "b two b mp three five g",
    "2½ cups": "two and one half cups",
    "U.S.A. e.g.": "usa eg",
    "Mr. Smith": "mister smith",
    "don’t": "don't",
    "'tis the dogs' rock 'n' roll": "tis the dogs rock n roll",
    "o''clock": "o clock",
    "AT&T": "at and t",
    "well-known, isn't it?": "well known isn't it",
    "ﬁ②Ａ": "fi two a",
    "Ça déjà ÜBER ß": "ça déjà über ß",
    "日本語、テスト。": "日本語 テスト",
    "हिन्दी में ५": "हिन्दी में ५",
    "co­operate": "cooperate",
    "snake_case": "snake case",
    "…": "",
}


@pytest.mark.parametrize("written", SPOKEN)
def test_writing_follows_speech(written: str) -> None:
    assert normalise(written) == SPOKEN[written]
    assert normalise(SPOKEN[written]) == SPOKEN[written]


@given(st.text() | st.text(alphabet="0123456789.,:$%'’-⁄ aAbdhkmnprst½€£é́") | st.from_regex(r"[\w'.,$%: -]+"))
@example("a'́b")
@example("per per cent")
def test_result_is_normal_and_stays(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert once == once.strip() == re.sub(r"\s+", " ", once)
    assert once == unicodedata.normalize("NFKC", once).lower()
    assert not re.search(r"[0-9]", once)
    for letter in once.replace(" ", "").replace("'", ""):
        assert unicodedata.category(letter)[0] in "LM" or unicodedata.category(letter) == "Nd"
    for word in once.split():
        assert not word.startswith("'")
        assert not word.endswith("'")
        assert "''" not in word


def test_every_letter_of_unicode_is_stable() -> None:
    letters = [
        chr(code) for code in range(0x80, sys.maxunicode) if unicodedata.category(chr(code))[0] in "LMN"
    ]
    text = normalise(" ".join(letters))
    assert normalise(text) == text


def _letters(text: str) -> str:
    """Return letters and digits, compatibility forms and case folded until nothing changes."""
    folded = unicodedata.normalize("NFKC", text).lower()
    if folded != text:
        return _letters(folded)
    return "".join(c for c in text if unicodedata.category(c)[0] == "L" or unicodedata.category(c) == "Nd")


def test_no_letter_and_no_digit_of_unicode_is_lost() -> None:
    apostrophes, in_words, said = "’‘ʼ`´ŉ", set("0123456789"), "℃℉🅬"
    for code in range(sys.maxunicode + 1):
        kept = _letters(chr(code))
        if kept and not in_words.intersection(kept) and chr(code) not in apostrophes + said:
            assert _letters(normalise(chr(code))) == kept, f"U+{code:04X}"


FOREIGN = st.characters(categories=["L", "M", "Nd", "Zs"]).filter(
    lambda c: not (_letters(c) or "é").isascii()
)


@given(st.text(FOREIGN | st.sampled_from(" -,.。、")) | st.text("가각é.-가"))
@example("ᄀ.ᅡ")
@example("-.")
def test_no_script_is_lost_in_any_text(text: str) -> None:
    # what a dropped dot stood between may be one letter without it
    assert _letters(_letters(normalise(text))) == _letters(_letters(text)).replace("ʼ", "")


@given(st.integers(0, 10**15 - 1))
def test_grouping_commas_change_nothing_but_years(number: int) -> None:
    spelt = normalise(f"{number:,}")
    if not (1100 <= number <= 1999 or 2010 <= number <= 2099):
        assert normalise(str(number)) == spelt
    assert _value(spelt) == number


def _value(words: str) -> int:
    """Read an English cardinal back."""
    small = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
        sixteen seventeen eighteen nineteen"""
    large = "ten twenty thirty forty fifty sixty seventy eighty ninety"
    units = {word: value for value, word in enumerate(small.split())}
    tens = {word: 10 * value for value, word in enumerate(large.split(), start=1)}
    scales = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
    total = group = 0
    for word in words.split():
        if word == "hundred":
            group *= 100
        elif word in scales:
            total, group = total + group * scales[word], 0
        else:
            group += units.get(word, 0) or tens.get(word, 0)
    return total + group
