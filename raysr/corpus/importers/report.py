"""What an import did: counts, and a row for everything it did not take."""

import json
import unicodedata
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raysr.corpus.disk import replacing

_NO_CHARACTERS = {"Cc", "Cs", "Zl", "Zp"}


@dataclass(frozen=True)
class Problem:
    """Something that was not imported.

    Attributes:
        kind: what is wrong in a word or two, to count by, such as ``duplicate id``.
        where: the file, or ``file:line`` of a transcript.
        reason: one line, with the mend.

    What a name or a text holds that is no character of a line (controls, bytes that are not UTF-8) is escaped.
    """

    kind: str
    where: str
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", one_line(self.where))
        object.__setattr__(self, "reason", one_line(self.reason))


@dataclass
class ImportReport:
    """The outcome of an import, as ``import.json`` holds it.

    Attributes:
        source, out: where the corpus is, and the folder it went to.
        sets: name of each set (``all``, or ``train`` and ``held-out``) → its folder of shards, or manifest.
        utterances, hours, with_text: what the sets hold now, earlier runs included.
        added: utterances that this run added.
        ignored: files that are no audio by their name, counted by suffix.
        problems: a row for every file, line and transcript that was not taken.
    """

    source: str
    out: str
    sets: dict[str, str]
    utterances: int = 0
    hours: float = 0.0
    with_text: int = 0
    added: int = 0
    ignored: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Return how many problems of each kind there are, the most frequent first."""
        return dict(Counter(problem.kind for problem in self.problems).most_common())

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "counts": self.counts()}

    def write(self, path: Path, settings: dict[str, Any]) -> None:
        """Write ``import.json``: this report and the settings by which a rerun knows that it may go on."""
        text = json.dumps({"settings": settings, **self.to_dict()}, ensure_ascii=False, indent=1)
        with replacing(path) as file:
            file.write(text.encode() + b"\n")


def one_line(text: str) -> str:
    """Return text as one line that UTF-8 can hold."""
    if text.isprintable():
        return text
    return "".join(c if unicodedata.category(c) not in _NO_CHARACTERS else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
