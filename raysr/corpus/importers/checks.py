"""Checks of transcripts: does the audio hold so many characters, and is it the writing of the rest."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache

# Fast speech has about 25 characters a second; far more means a transcript of other audio, or a cut file.
MAX_CHARACTERS_PER_SECOND = 30.0
_MINORITY = 0.25
_JAPANESE_AND_CHINESE = {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC"}


def too_long(text: str, seconds: float) -> str | None:
    """Return why ``text`` cannot have been said in that time; None when it can."""
    rate = len(text) / seconds
    if rate <= MAX_CHARACTERS_PER_SECOND:
        return None
    return (
        f"{len(text)} characters in {seconds:.2f} s are {rate:.0f} a second, more than can be said "
        f"({MAX_CHARACTERS_PER_SECOND:.0f}): is it the transcript of this file?"
    )


def script_of(text: str) -> str | None:
    """Return the script of most letters of ``text``, as Unicode names it; None without letters."""
    scripts = Counter(script_of_letter(letter) for letter in text if letter.isalpha())
    return scripts.most_common(1)[0][0] if scripts else None


def scripts_in_use(texts: Iterable[str]) -> set[str]:
    """Return the scripts that a corpus with these texts is written in."""
    return main_scripts(Counter(script for script in map(script_of, texts) if script))


def main_scripts(counts: Mapping[str, int]) -> set[str]:
    """Return the scripts, of those counted, that at least a quarter of the texts use."""
    total = sum(counts.values())
    return {script for script, count in counts.items() if count >= _MINORITY * total}


def other_script(text: str, scripts: set[str]) -> str | None:
    """Return why ``text`` is not in one of the corpus's scripts; None when it is, or has no letters."""
    script = script_of(text)
    if script is None or script in scripts:
        return None
    return (
        f"is in {script.title()} script, most transcripts are in {' and '.join(sorted(scripts)).title()}: "
        "is it the right one? (if it is: --any-script)"
    )


@lru_cache(maxsize=4096)
def script_of_letter(letter: str) -> str:
    """Return the script of a letter, as Unicode names it; Han and the Japanese syllabaries are one."""
    name = unicodedata.name(letter, "UNKNOWN").split()[0]
    return "CJK" if name in _JAPANESE_AND_CHINESE else name
