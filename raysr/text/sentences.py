"""Sentences out of text files: what is spoken into a corpus, and what a language model reads."""

import re
from collections.abc import Iterator
from pathlib import Path

from raysr.errors import CorpusError
from raysr.text.normalise import normalise


def read_sentences(path: Path, prose: bool = False) -> list[str]:
    """Return the sentences of a text file, normalised, in their order; what holds no word is left out.

    Args:
        path: UTF-8 text with a sentence a line.
        prose: it is running text instead, its paragraphs apart by an empty line or one of a single ``%``.

    Raises:
        CorpusError: the file cannot be read, or holds no sentence.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise CorpusError(f"cannot read {path}: {reason}; give UTF-8 text with a sentence a line") from None
    lines = _prose(text) if prose else text.splitlines()
    sentences = [words for words in map(normalise, lines) if words]
    if not sentences:
        raise CorpusError(f"{path} holds no sentence; give UTF-8 text with a sentence a line")
    return sentences


def _prose(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*%?\s*\n", text):
        yield from re.split(r"(?<=[.?!])\s+", " ".join(paragraph.split()))
