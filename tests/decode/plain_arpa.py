"""A strict reader of ARPA files with the textbook's back-off, which shares nothing with raysr's own.

It answers the calls of the ``kenlm`` module, so that what asks KenLM can be run where that module is not installed.
"""

import gzip
import re
from pathlib import Path


class State:
    """The words read so far, as many as the model looks at."""

    def __init__(self) -> None:
        self.words: tuple[str, ...] = ()


class Model:
    """An n-gram model in dictionaries; raises AssertionError wherever a file departs from the format."""

    def __init__(self, path: str) -> None:
        data = Path(path).read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
        assert text.startswith("\\data\\\nngram 1=")
        header, *sections, end = text.split("\n\n")
        assert end == "\\end\\\n"
        self.order = len(sections)
        self.prob: dict[tuple[str, ...], float] = {}
        self.backoff: dict[tuple[str, ...], float] = {}
        assert len(header.split("\n")) == 1 + self.order
        for n, (counted, section) in enumerate(zip(header.split("\n")[1:], sections, strict=True), start=1):
            heading, *lines = section.split("\n")
            assert heading == f"\\{n}-grams:"
            assert counted == f"ngram {n}={len(lines)}"
            for line in lines:
                match = re.fullmatch(r"(-?[0-9.e-]+)\t([^\t]+)(?:\t(-?[0-9.e-]+))?", line)
                assert match
                gram = tuple(match[2].split(" "))
                assert len(gram) == n
                assert gram not in self.prob
                assert n == 1 or gram[:-1] in self.prob
                assert float(match[1]) <= 0
                assert n < self.order or match[3] is None
                self.prob[gram], self.backoff[gram] = float(match[1]), float(match[3] or 0)
        assert {("<s>",), ("</s>",), ("<unk>",)} <= self.prob.keys()

    def log10(self, history: tuple[str, ...], word: str) -> float:
        """Return log10 of a word's probability after a history."""
        history = history[max(0, len(history) - self.order + 1) :]
        if (*history, word) in self.prob:
            return self.prob[*history, word]
        return self.backoff.get(history, 0.0) + self.log10(history[1:], word)

    def __contains__(self, word: str) -> bool:
        return (word,) in self.prob

    def BeginSentenceWrite(self, state: State) -> None:
        state.words = ("<s>",)

    def NullContextWrite(self, state: State) -> None:
        state.words = ()

    def BaseScore(self, before: State, word: str, after: State) -> float:
        known = word if word in self else "<unk>"
        score = self.log10(before.words, known)
        after.words = (*before.words, known)[-self.order :]
        return score
