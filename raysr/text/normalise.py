"""One written form for references, teachers and scoring, so that WER counts words and not spellings."""

import re
import unicodedata

from raysr.text.numbers import spell_numbers

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ`´", "'"))
_VULGAR_FRACTION = re.compile("([0-9])(?=[¼-¾⅐-⅞↉])")
_INITIALS = re.compile(r"(?<![^\W\d_])((?:[^\W\d_]\.)+[^\W\d_])(?![^\W_])\.?")
_SYMBOLS = str.maketrans({"&": " and ", "+": " plus ", "@": " at "})
_ABBREVIATIONS = {"mr": "mister", "mrs": "missus", "dr": "doctor"}
_PER_CENT = re.compile(r"\bper cent\b")


def normalise(text: str) -> str:
    """Return text in lower case, numbers spelt out in English words, punctuation dropped, white space folded.

    Compatibility forms are folded (NFKC), apostrophes stay inside words, initials lose their dots ("U.S." is
    "us", "p.m." is "pm"), letters of any script and their marks are kept. Idempotent.
    """
    text = _fold(_VULGAR_FRACTION.sub(r"\1 ", text))
    text = _fold(_INITIALS.sub(lambda match: match[1].replace(".", ""), text))
    text = _keep_letters(spell_numbers(text).translate(_SYMBOLS))
    text = " ".join(_ABBREVIATIONS.get(word, word) for word in text.split())
    return _PER_CENT.sub("percent", text)


def _fold(text: str) -> str:
    """Lower the case and fold compatibility forms until nothing changes; drop invisible format characters."""
    while True:
        folded = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).lower()
        folded = "".join(letter for letter in folded if unicodedata.category(letter) != "Cf")
        if folded == text:
            return folded
        text = folded


def _keep_letters(text: str) -> str:
    """Blank out all but letters, marks and digits within a word, and single apostrophes between them."""
    kept = [" "]
    for letter in text:
        last = kept[-1]
        category = unicodedata.category(letter)
        if category[0] == "L" or category == "Nd":
            kept.append(letter)
        elif category[0] == "M":
            if last not in " '":
                kept.append(letter)
        elif letter == "'" and last not in " '":
            kept.append(letter)
        elif last == "'":
            kept[-1] = " "
        else:
            kept.append(" ")
    return "".join(kept).rstrip("'")
