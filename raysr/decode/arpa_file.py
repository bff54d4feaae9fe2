"""Reading an ARPA file line by line, so that every error names one; the format is SRILM's ngram-format(5)."""

import gzip
import math
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from raysr.errors import PoolError


class ArpaFile:
    """An ARPA file that is read once, from top to bottom; ``number`` is that of the last line read."""

    def __init__(self) -> None:
        self.number = 0
        self.counts: list[int] = []

    def read_header(self, lines: Iterable[str]) -> None:
        """Read on to the first n-gram; what precedes the header is a comment."""
        self._lines = iter(lines)
        while self._line() != "\\data\\":
            pass
        while counted := re.fullmatch(r"ngram +(\d+) *= *(\d+)", line := self._line()):
            self.counts.append(int(counted[2]))
            if int(counted[1]) != len(self.counts):
                raise ValueError(f"here should be the number of {len(self.counts)}-grams")
        if not self.counts:
            raise ValueError("the header counts no n-grams")
        self._heading = line

    def grams(self, highest: int | None = None) -> Iterator[tuple[list[str], float, float]]:
        """Yield the n-grams, their log10 probabilities and back-offs; all, or those up to an order."""
        for order, count in enumerate(self.counts[:highest], start=1):
            if self._heading != f"\\{order}-grams:":
                raise ValueError(f"here should be \\{order}-grams:")
            for _ in range(count):
                yield self._gram(order)
            self._heading = self._line()
        if highest is None and self._heading != "\\end\\":
            raise ValueError("here should be \\end\\")

    def _gram(self, order: int) -> tuple[list[str], float, float]:
        prob, *fields = re.split(r"[ \t]+", self._line())
        backoff = float(fields.pop()) if len(fields) == order + 1 else 0.0
        if len(fields) != order:
            raise ValueError(f"here should be one of {self.counts[order - 1]} {order}-grams")
        if not (float(prob) <= 0 and backoff < math.inf):
            raise ValueError(f"{prob} and {backoff} should be log10 of a probability and a back-off")
        return fields, float(prob), backoff

    def _line(self) -> str:
        """Return the next line that is not empty."""
        for line in self._lines:
            self.number += 1
            if stripped := line.strip(" \t\r\n"):
                return stripped
        raise ValueError("it ends too early")


@contextmanager
def opened(path: Path) -> Iterator[ArpaFile]:
    """Open a file, gzipped if its name ends in .gz, with its header read.

    What cannot be read, be it here or by who holds it, raises :class:`raysr.errors.PoolError` with file and line.
    """
    file = ArpaFile()
    try:
        open_text = gzip.open if path.suffix == ".gz" else open
        with open_text(path, "rt", encoding="utf-8", newline="\n") as lines:
            file.read_header(lines)
            yield file
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise PoolError(
            f"{path} line {max(1, file.number)}: not a language model in ARPA format ({error})"
        ) from None
