"""Numbers written in digits, spelt out as an English speaker would say them."""

import re
from functools import lru_cache

import inflect

_NUMBER = r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]*\.[0-9]+|[0-9]+"
_CLOCK = re.compile(r"(?<![0-9:.])([01]?[0-9]|2[0-3]):([0-5][0-9])(?![0-9:])(\s*[ap]m\b)?")
_MONEY = re.compile(
    rf"(?<![0-9])([$£€¥])\s*({_NUMBER})(?:\s*(thousand|million|billion|trillion|k|m|bn)(?![^\W_]))?"
)
_MONEY_AFTER = re.compile(rf"({_NUMBER})\s?([£€])(?![0-9])")
_DECADE = re.compile(r"(?<![^\W_])'?([0-9]{1,3}0)'?s(?![^\W_])")
_ORDINAL = re.compile(r"([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:st|nd|rd|th)(?![^\W_])")
_FRACTION = re.compile(r"(?:([0-9]+) +)?([0-9]+)⁄([0-9]+)")
_MINUS = re.compile(r"(?<!\S)[-−](?=\.?[0-9])")
_PLAIN = re.compile(_NUMBER)
_UNITS = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent"), "¥": ("yen", "sen")}
_PLURALS = {"penny": "pence", "yen": "yen", "sen": "sen", "half": "halves"}
_SCALES = {"k": "thousand", "m": "million", "bn": "billion"}
_LONGEST_CARDINAL = 15


def spell_numbers(text: str) -> str:
    """Return lower-case text with every group of ASCII digits spelt out, set apart by spaces.

    Amounts, percentages, ordinals, decades, times of day and years (1100 … 1999 and 2010 … 2099, in pairs)
    are read as such; a leading zero or more than 15 digits are read one by one. Other scripts' digits stay.
    """
    text = _MINUS.sub(" minus ", text)
    text = _CLOCK.sub(lambda match: f" {_clock(match[1], match[2], match[3])} ", text)
    text = _MONEY.sub(lambda match: f" {_money(match[1], match[2], match[3])} ", text)
    text = _MONEY_AFTER.sub(lambda match: f" {_money(match[2], match[1], None)} ", text)
    text = _DECADE.sub(lambda match: f" {_plural(_year_or_cardinal(match[1]))} ", text)
    text = _ORDINAL.sub(lambda match: f" {_ordinal(match[1].replace(',', ''))} ", text)
    text = _FRACTION.sub(lambda match: f" {_fraction(match[1], match[2], match[3])} ", text)
    text = _PLAIN.sub(lambda match: f" {_number(match[0])} ", text)
    return text.replace("%", " percent ").replace("°", " degrees ")


def _number(digits: str) -> str:
    return _decimal(digits) if "," in digits or "." in digits else _year_or_cardinal(digits)


def _decimal(digits: str) -> str:
    whole, _, fraction = digits.replace(",", "").partition(".")
    words = _cardinal(whole) if whole else ""
    return f"{words} point {_one_by_one(fraction)}".strip() if fraction else words


def _year_or_cardinal(digits: str) -> str:
    if len(digits) != 4 or not ("1100" <= digits <= "1999" or "2010" <= digits <= "2099"):
        return _cardinal(digits)
    century, rest = digits[:2], digits[2:]
    if rest == "00":
        return f"{_cardinal(century)} hundred"
    return f"{_cardinal(century)} {_minutes(rest)}"


def _minutes(digits: str) -> str:
    """Read two digits after a century or an hour: "05" is "oh five"."""
    return f"oh {_cardinal(digits[1])}" if digits[0] == "0" else _cardinal(digits)


def _clock(hour: str, minute: str, half_day: str | None) -> str:
    on_the_hour = "" if half_day else "o'clock"
    return (
        f"{_cardinal(str(int(hour)))} {on_the_hour if minute == '00' else _minutes(minute)} {half_day or ''}"
    )


def _money(symbol: str, amount: str, scale: str | None) -> str:
    large, small = _UNITS[symbol]
    whole, _, fraction = amount.replace(",", "").partition(".")
    if scale or (fraction and len(fraction) != 2):
        return " ".join(
            filter(
                None, [_decimal(amount), _SCALES.get(scale or "", scale), _PLURALS.get(large, large + "s")]
            )
        )
    parts = [_count(whole, large)] if whole.strip("0") or not fraction.strip("0") else []
    if fraction.strip("0"):
        parts.append(_count(str(int(fraction)), small))
    return " and ".join(parts)


def _count(digits: str, noun: str) -> str:
    return f"{_cardinal(digits or '0')} {noun if digits == '1' else _PLURALS.get(noun, noun + 's')}"


def _fraction(whole: str | None, numerator: str, denominator: str) -> str:
    noun = {"2": "half", "4": "quarter"}.get(denominator) or _ordinal(denominator)
    words = _count(numerator, noun)
    return f"{_cardinal(whole)} and {words}" if whole else words


def _plural(words: str) -> str:
    return words[:-1] + "ies" if words.endswith("y") else words + "s"


def _one_by_one(digits: str) -> str:
    return " ".join(_cardinal(digit) for digit in digits)


@lru_cache(maxsize=4096)
def _cardinal(digits: str) -> str:
    if len(digits) > 1 and (digits[0] == "0" or len(digits) > _LONGEST_CARDINAL):
        return _one_by_one(digits)
    return _spoken(digits)


@lru_cache(maxsize=4096)
def _ordinal(digits: str) -> str:
    return _spoken(_engine().ordinal(digits.lstrip("0")[-_LONGEST_CARDINAL:] or "0"))


def _spoken(number: str) -> str:
    words = _engine().number_to_words(number, andword="", comma="")
    return str(words).replace("-", " ")


@lru_cache(maxsize=1)
def _engine() -> inflect.engine:
    return inflect.engine()
