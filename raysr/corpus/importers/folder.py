"""A folder of audio, with or without transcripts, as a source; every file is an utterance."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raysr.corpus.importers.options import ImportOptions
from raysr.corpus.importers.report import ImportReport, Problem
from raysr.corpus.importers.run import Progress, import_corpus
from raysr.corpus.importers.scan import scan
from raysr.corpus.importers.source import Entry, Recording, Segment
from raysr.corpus.importers.transcripts import match


class FolderSource:
    """Every file below a folder that PyAV reads, named by its path without the suffix.

    Args:
        folder: the audio.
        transcripts: a file of transcripts (see :mod:`raysr.corpus.importers.transcripts`); None looks for a
            ``.txt`` beside each audio file.
        leave_out: files and folders below ``folder`` that are none of it.

    Raises:
        CorpusError: no such folder, no audio in it, or no such transcripts.
    """

    form = "folder"

    def __init__(
        self, folder: str | Path, transcripts: str | Path | None = None, leave_out: tuple[Path, ...] = ()
    ) -> None:
        folder = Path(folder).absolute()
        texts = Path(transcripts).absolute() if transcripts is not None else None
        self.place = str(folder)
        self._found = scan(folder, leave_out=(*leave_out, *([texts] if texts else [])))
        self._texts, self._problems = match(self._found.files, texts)
        self.ignored: Mapping[str, int] = self._found.ignored

    def __iter__(self) -> Iterator[Entry | Problem]:
        yield from self._found.problems
        yield from self._problems
        for file in self._found.files:
            recording = Recording(str(file.path), file.name, group=file.id)
            yield recording, Segment(file.id, file.name, transcript=self._texts.get(file.id))


def import_folder(
    source: str | Path,
    out: str | Path,
    transcripts: str | Path | None = None,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> ImportReport:
    """Import a :class:`FolderSource`: :func:`~raysr.corpus.importers.run.import_corpus` with its options."""
    chosen = ImportOptions(**options)
    out = Path(out).absolute()
    return import_corpus(FolderSource(source, transcripts, (out,)), out, chosen, progress)
