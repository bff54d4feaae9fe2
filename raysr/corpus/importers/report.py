"""What an import did: counts, and a row for everything it did not take."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raysr.corpus.disk import replacing


@dataclass(frozen=True)
class Problem:
    """Something that was not imported.

    Attributes:
        kind: what is wrong in a word or two, to count by, such as ``duplicate id``.
        where: the file, or ``file:line`` of a transcript.
        reason: one line, with the mend.
    """

    kind: str
    where: str
    reason: str


@dataclass
class ImportReport:
    """The outcome of an import, as ``import.json`` holds it.

    Attributes:
        source, out: the folders.
        sets: name of each set (``all``, or ``train`` and ``held-out``) → its folder of shards.
        utterances, hours, with_text: what the shards hold now, earlier runs included.
        added: utterances that this run added.
        ignored: files that are no audio by their name, counted by suffix.
        problems: a row for every file and transcript that was not taken.
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
