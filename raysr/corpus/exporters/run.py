"""One export, whatever the form: a corpus as somebody else's tools read it."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from raysr.corpus import places
from raysr.corpus.disk import exclusive, naming_folder
from raysr.corpus.exporters.audio import CODECS, Encoded, ExportTask, encode
from raysr.corpus.exporters.folder import FolderForm
from raysr.corpus.exporters.form import Exported, Form
from raysr.corpus.exporters.huggingface import HuggingFaceForm
from raysr.corpus.exporters.kaldi import KaldiForm
from raysr.corpus.exporters.lhotse import LhotseForm
from raysr.corpus.exporters.names import file_name
from raysr.corpus.exporters.nemo import NemoForm
from raysr.corpus.importers.report import Problem
from raysr.corpus.manifest import Manifest
from raysr.corpus.ordered import stream_in_workers
from raysr.corpus.utterance import Utterance
from raysr.corpus.workers import WorkerDied
from raysr.errors import CorpusError

FORMS: dict[str, Callable[[Path, Path], Form]] = {
    "folder": FolderForm,
    "kaldi": KaldiForm,
    "nemo": NemoForm,
    "lhotse": LhotseForm,
    "huggingface": HuggingFaceForm,
}


@dataclass
class ExportReport:
    """The outcome of an export.

    Attributes:
        out: its folder.
        utterances, hours: what it holds.
        lost: what the form cannot hold → how many utterances had it.
        problems: a row for every utterance that was not exported.
    """

    out: str
    utterances: int = 0
    hours: float = 0.0
    lost: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Return how many problems of each kind there are, the most frequent first."""
        return dict(Counter(problem.kind for problem in self.problems).most_common())


def export_corpus(
    manifest: Manifest,
    out: str | Path,
    form: str,
    *,
    audio: str | None = None,
    reference: bool = False,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> ExportReport:
    """Write a corpus to a new folder, which appears whole or not at all.

    Audio is written as 16 kHz mono of 16 bits: as raysr hears it, cut and mixed. Samples beyond full scale are
    turned down to it.

    Args:
        manifest: what to export.
        out: a folder that does not exist yet, or is empty.
        form: one of ``FORMS``.
        audio: ``flac`` or ``wav``; None takes what the form's tools read best.
        reference: name audio files where they lie, with offsets, instead of writing new ones. Audio that lies
            in shards, or is mixed when it is loaded, is written all the same.
        workers: processes that decode and encode.
        progress: told how many of how many utterances are done.

    Raises:
        CorpusError: no such form or codec, ``out`` holds something, the disk is full, or nothing was exported.
    """
    out = Path(out).absolute()
    if form not in FORMS:
        raise CorpusError(f"no such format '{form}': choose {', '.join([*FORMS][:-1])} or {[*FORMS][-1]}")
    if audio not in (None, *CODECS):
        raise CorpusError(f"no such audio format '{audio}': choose {' or '.join(CODECS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CorpusError(f"{out}: is there already: give a new or an empty folder")
    staging = out.with_name(f".{out.name}.partial")
    with exclusive(staging, wait=False), naming_folder(out.parent):
        _empty(staging)
        try:
            writer = FORMS[form](staging, out)
            if reference and not writer.refers:
                raise CorpusError(f"--reference: the format {form} holds its audio itself: leave it out")
            report = _write(
                manifest, writer, staging, out, audio or writer.codec, reference, workers, progress
            )
            (staging / ".lock").unlink()
            os.replace(staging, out)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    return report


def _write(
    manifest: Manifest,
    writer: Form,
    staging: Path,
    out: Path,
    codec: str,
    reference: bool,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> ExportReport:
    report = ExportReport(str(out))
    for utterance, encoded in _encoded(manifest, codec, reference, workers, report):
        item = _exported(utterance, encoded, writer.audio_folder, codec)
        if writer.audio_folder is not None and encoded.audio:
            path = staging / item.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded.audio)
        report.lost.update(set(writer.add(item)))
        report.utterances += 1
        report.hours += item.utterance.duration / 3600
        if progress:
            progress(report.utterances + len(report.problems), len(manifest))
    report.lost.update(writer.finish())
    if not report.utterances:
        example = f"; the first: {report.problems[0].reason}" if report.problems else ""
        raise CorpusError(f"{out}: there was no utterance that could be exported{example}")
    return report


def _encoded(
    manifest: Manifest, codec: str, reference: bool, workers: int, report: ExportReport
) -> Iterator[tuple[Utterance, Encoded]]:
    """Yield the utterances with their files; what fails becomes a problem of the report."""
    tasks = (
        ExportTask(utterance, None if reference and _is_file(utterance) else codec)
        for utterance in _once(manifest, report)
    )
    for task, result in stream_in_workers(encode, tasks, workers, size=lambda encoded: len(encoded.audio)):
        crashed = "the decoder crashes or hangs on it"
        error = crashed if isinstance(result, WorkerDied) else result.error
        if error:
            report.problems.append(Problem("unreadable audio", task.utterance.id, error))
        elif not isinstance(result, WorkerDied):
            yield task.utterance, result


def _once(manifest: Manifest, report: ExportReport) -> Iterator[Utterance]:
    seen: set[str] = set()
    for utterance in manifest:
        if utterance.id in seen:
            report.problems.append(Problem("duplicate id", utterance.id, "comes twice: ids must differ"))
        else:
            seen.add(utterance.id)
            yield utterance


def _exported(utterance: Utterance, encoded: Encoded, folder: str | None, codec: str) -> Exported:
    if not encoded.audio:
        return Exported(utterance, utterance.audio, encoded.sample_rate, encoded.samples)
    file = os.path.join(folder or "", f"{file_name(utterance.id)}.{codec}")
    seconds = encoded.samples / encoded.sample_rate
    written = replace(utterance, audio=file, row=None, start=0.0, duration=seconds, mix=None)
    return Exported(written, file, encoded.sample_rate, encoded.samples, encoded.audio)


def _is_file(utterance: Utterance) -> bool:
    return utterance.row is None and utterance.mix is None and not places.is_uri(utterance.audio)


def _empty(folder: Path) -> None:
    """Remove what an export that was killed left."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()
