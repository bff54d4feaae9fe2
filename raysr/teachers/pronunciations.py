"""Pronunciation dictionaries in the form of the CMU's (``WORD  W ER D``, ``WORD(2)  …``), and which words an LM has.

PocketSphinx itself leaves out what it cannot use without a word; here every fault names its file and line.
"""

import re
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from raysr.decode.arpa_file import opened
from raysr.errors import ConfigError, PoolError

_ALTERNATE = re.compile(r"(?<=.)\((?:\d+|[^()\s]*)\)$")
_TRIE = b"Trie Language Model"
Phones = tuple[str, ...]


class Pronunciations:
    """Words and how they are said; case of ASCII letters does not tell words apart, as in PocketSphinx."""

    def __init__(self) -> None:
        self._words: dict[str, tuple[str, dict[Phones, None]]] = {}

    def __contains__(self, word: str) -> bool:
        return word.lower() in self._words

    def __len__(self) -> int:
        return len(self._words)

    def read(self, path: Path, phone: Callable[[str], str | None]) -> list[str]:
        """Add a file's pronunciations to those there are, and return its words.

        Args:
            path: UTF-8 text; lines that begin with ``#`` or ``;;`` are comments.
            phone: returns the acoustic model's name of a phone, None for one that it does not know.

        Raises:
            ConfigError: the file cannot be read, or a line of it: names both.
        """
        found: dict[str, None] = {}
        for number, line in enumerate(_text(path).splitlines(), start=1):
            line = line.partition(" #")[0].strip()
            if not line or line.startswith(("#", ";;")):
                continue
            written, *phones = line.split()
            if not phones:
                raise ConfigError(f"{path} line {number}: '{written}' has no phones: WORD  PH ON EM S")
            known = [phone(p) for p in phones]
            if None in known:
                wrong = phones[known.index(None)]
                raise ConfigError(
                    f"{path} line {number}: the acoustic model has no phone '{wrong}' ('{written}')"
                )
            word = _ALTERNATE.sub("", written)
            spelling, said = self._words.setdefault(word.lower(), (word, {}))
            said[tuple(map(str, known))] = None
            found[spelling] = None
        if not found:
            raise ConfigError(f"{path}: no pronunciations in it: a line should be WORD  PH ON EM S")
        return list(found)

    def lines(self) -> Iterable[str]:
        """Yield the lines of a dictionary, alternatives numbered anew."""
        for word, said in self._words.values():
            for number, phones in enumerate(said, start=1):
                yield f"{word if number == 1 else f'{word}({number})'} {' '.join(phones)}\n"


def words_of_lm(path: Path) -> list[str] | None:
    """Return the words of a language model, ARPA or PocketSphinx's binary trie; None of other binary forms.

    Raises:
        ConfigError: it cannot be read; names file and line.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if head.startswith(_TRIE):
        return _words_of_trie(path.read_bytes())
    if path.suffix != ".gz" and b"\0" in head:
        return None
    try:
        with opened(path) as arpa:
            words = [word for [word], _, _ in arpa.grams(1)]
    except PoolError as error:
        raise ConfigError(str(error)) from None
    return [word for word in words if not word.startswith("<")]


def check_arpa(path: Path) -> None:
    """Raise :class:`ConfigError` that names the first line of an ARPA file at fault, if any is."""
    try:
        with opened(path) as arpa:
            for _ in arpa.grams():
                pass
    except PoolError as error:
        raise ConfigError(str(error)) from None


def missing_words(words: Iterable[str], known: Pronunciations) -> tuple[int, list[str]]:
    """Return how many words have no pronunciation, and the first few of them."""
    missing = [word for word in words if word not in known]
    return len(missing), list(islice(missing, 5))


def _words_of_trie(data: bytes) -> list[str] | None:
    """Return the strings at the end of the file: their length in bytes, then each with a zero byte after it."""
    count = int.from_bytes(data[len(_TRIE) + 1 : len(_TRIE) + 5], "little")
    strings = data[:-1].rsplit(b"\0", count)[1:]
    length = sum(len(string) + 1 for string in strings)
    if int.from_bytes(data[-length - 4 : -length], "little") != length:
        return None
    words = [string.decode("utf-8", "replace") for string in strings]
    return [word for word in words if not word.startswith("<")]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path} line {line}: not UTF-8 text") from None
