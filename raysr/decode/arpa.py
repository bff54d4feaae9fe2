"""ARPA back-off files: the text form of n-gram models that other toolkits read (SRILM's ngram-format(5)).

The words are the decimal token ids, with ``<s>``, ``</s>`` and ``<unk>`` by their usual names; the blank is
left out. Nine digits bring every float32 back bit for bit.
"""

import gzip
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raysr.decode.hypothesis import BLANK, EOS
from raysr.decode.ngram_estimate import Level
from raysr.errors import PoolError

UNKNOWN = 1
NEVER = -99.0
VOCABULARY = "raysr vocabulary size"


def write(path: Path, levels: list[Level], vocab_size: int) -> None:
    """Write ``levels`` to ``path``, gzipped (without a time stamp) if its name ends in .gz."""
    words = [str(token) for token in range(vocab_size)] + ["<s>"]
    words[EOS], words[UNKNOWN] = "</s>", "<unk>"
    text = "\n".join(_lines(levels, words, vocab_size)) + "\n"
    data = text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _lines(levels: list[Level], words: list[str], vocab_size: int) -> Iterator[str]:
    yield f"{VOCABULARY} {vocab_size}"
    yield "\\data\\"
    for n, level in enumerate(levels, start=1):
        yield f"ngram {n}={len(level) - (n == 1)}"
    spelled = [""]
    for n, level in enumerate(levels, start=1):
        yield f"\n\\{n}-grams:"
        parents = level.prefix.tolist()
        spelled = [
            f"{spelled[p]} {words[t]}".lstrip() for p, t in zip(parents, level.token.tolist(), strict=True)
        ]
        rows = zip(level.log10_prob.tolist(), spelled, level.log10_backoff.tolist(), strict=True)
        for i, (prob, gram, backoff) in enumerate(rows):
            if n == 1 and i == BLANK:
                continue
            tail = f"\t{backoff:.9g}" if backoff else ""
            yield f"{prob if math.isfinite(prob) else NEVER:.9g}\t{gram}{tail}"
    yield "\n\\end\\"


def read(path: Path) -> tuple[list[Level], int]:
    """Read what :func:`write` wrote; return the levels and the vocabulary size.

    Raises :class:`raysr.errors.PoolError` naming the file and line that is not understood.
    """
    number = 1
    try:
        data = path.read_bytes()
        lines = (gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines()
        if not lines or not lines[0].startswith(VOCABULARY):
            raise ValueError(f"the first line should be '{VOCABULARY} N'")
        reader = _Reader(int(lines[0].rsplit(maxsplit=1)[1]))
        for line in lines[1:]:
            number += 1
            reader.read(line)
        return reader.levels(), reader.vocab_size
    except (OSError, EOFError, zlib.error, ValueError, LookupError) as error:
        raise PoolError(f"{path} line {number}: not a language model of raysr ({error})") from None


class _Reader:
    """Collects the n-grams of an ARPA file line by line."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self._ids = {str(token): token for token in range(vocab_size)}
        self._ids |= {"</s>": EOS, "<unk>": UNKNOWN, "<s>": vocab_size}
        self._order = 0
        self._complete = False
        self._rows: list[list[tuple[tuple[int, ...], float, float]]] = []

    def read(self, line: str) -> None:
        if line.startswith("\\"):
            self._complete = line == "\\end\\"
            if line.endswith("-grams:"):
                self._order = int(line[1:].split("-")[0])
                self._rows.append([])
        elif line and self._order:
            prob, gram, *backoff = line.split("\t")
            tokens = tuple(self._ids[word] for word in gram.split(" "))
            if len(tokens) != self._order:
                raise ValueError(f"{len(tokens)} words among the {self._order}-grams")
            self._rows[-1].append((tokens, float(prob), float(backoff[0]) if backoff else 0.0))

    def levels(self) -> list[Level]:
        if not self._complete or len(self._rows[0]) != self.vocab_size:
            raise ValueError("it ends too early, or lacks a unigram")
        blank = ((BLANK,), -math.inf, 0.0)
        numbers: dict[tuple[int, ...], int] = {(): 0}
        levels = []
        for n, rows in enumerate(self._rows):
            rows = sorted([blank, *rows] if n == 0 else rows)
            below, numbers = numbers, {row[0]: i for i, row in enumerate(rows)}
            prefix = _integers([below[tokens[:-1]] for tokens in numbers])
            suffix = _integers([below[tokens[1:]] for tokens in numbers]) if n else np.arange(len(rows))
            prob = np.asarray([row[1] for row in rows], np.float32)
            prob[prob <= NEVER] = -np.inf
            backoff = np.asarray([row[2] for row in rows], np.float32)
            levels.append(Level(prefix, _integers([t[-1] for t in numbers]), suffix, prob, backoff))
        return levels


def _integers(values: list[int]) -> NDArray[np.int64]:
    return np.asarray(values, np.int64)
