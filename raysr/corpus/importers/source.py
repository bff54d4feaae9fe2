"""A corpus in somebody's form: recordings, and the segments of them that are utterances."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from raysr.corpus import places
from raysr.corpus.importers.report import Problem
from raysr.corpus.importers.transcripts import Transcript


@dataclass(frozen=True, slots=True)
class Cell:
    """Audio that lies in a table: ``row`` of ``column`` in a Parquet or Arrow file."""

    table: str
    row: int
    column: str


@dataclass(frozen=True, slots=True)
class Recording:
    """One channel of one file.

    Attributes:
        audio: an absolute path, a URI, or a cell of a table.
        name: what reports and ``custom.origin`` call it.
        group: its id; utterances of one group go to the same set, train or held-out.
        channel: which channel of the file, from 0; None takes the mean of all.
        sample_rate: in Hz, as the corpus says; None where it does not.
        duration: in seconds, as the corpus says; None where it does not.
    """

    audio: str | Cell
    name: str
    group: str
    channel: int | None = None
    sample_rate: int | None = None
    duration: float | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """An utterance as a corpus names it.

    Attributes:
        id: unique in the corpus.
        where: the file, or ``file:line``, that names it.
        start, duration: in seconds of its recording; a duration of None goes to the recording's end.
        transcript: as written, where there is one.
        speaker, language, tags, custom: as of an :class:`~raysr.corpus.utterance.Utterance`.
    """

    id: str
    where: str
    start: float = 0.0
    duration: float | None = None
    transcript: Transcript | None = None
    speaker: str | None = None
    language: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    custom: Mapping[str, Any] = field(default_factory=dict)


Entry = tuple[Recording, Segment]


class Source(Protocol):
    """What an importer of one form is: an iterable of entries, and of what is wrong with others.

    Attributes:
        place: of the corpus, for messages.
        form: its short name, such as ``kaldi``.
        ignored: files that are no audio by their name, counted by suffix.
    """

    place: str
    form: str
    ignored: Mapping[str, int]

    def __iter__(self) -> Iterator[Entry | Problem]: ...


def transcript_of(text: str | None, where: str) -> Transcript | None:
    """Return a transcript with its white space folded; None where there is no text or only white space."""
    folded = " ".join(text.split()) if text else ""
    return Transcript(folded, where) if folded else None


def locate(path: str, folder: str) -> str:
    """Return where a file lies that a corpus in ``folder`` names: relative to that, or to where we are.

    Recipes of Kaldi and lhotse name files relative to the folder they run in, NeMo relative to the manifest.
    """
    beside = places.absolute(path, folder)
    if places.is_uri(beside) or os.path.lexists(beside):
        return beside
    here = places.absolute(path)
    return here if os.path.lexists(here) else beside
