"""One import, whatever the form of the corpus: its segments checked, read, and written to shards."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from raysr.corpus.disk import exclusive, remove_partials
from raysr.corpus.importers.checks import main_scripts, script_of
from raysr.corpus.importers.huggingface import HuggingFaceSource
from raysr.corpus.importers.job import ImportJob
from raysr.corpus.importers.options import ImportOptions
from raysr.corpus.importers.recordings import Clip, ReadTask, read_clips
from raysr.corpus.importers.references import MANIFEST, ReferenceWriter, settle
from raysr.corpus.importers.report import ImportReport, Problem
from raysr.corpus.importers.source import Cell, Source
from raysr.corpus.importers.tables import CellReader
from raysr.corpus.importers.worklist import WorkList
from raysr.corpus.ordered import stream_in_workers
from raysr.corpus.shards import ShardWriter
from raysr.corpus.workers import WorkerDied
from raysr.errors import CorpusError

Progress = Callable[[int, int], None]


def import_corpus(
    source: Source, out: str | Path, options: ImportOptions, progress: Progress | None = None
) -> ImportReport:
    """Write the utterances of ``source`` as shards in ``out``, and ``import.json`` with the outcome.

    A rerun goes on: utterances already in the shards are passed over, mended and new ones are added. A run
    that is killed loses the shard under way, and nothing else; none is ever half written or there twice.

    Args:
        source: a corpus in any form.
        out: a new or empty folder, or one that an earlier run of the same import left.
        options: how to import it.
        progress: told how many of how many utterances are done.

    Raises:
        CorpusError: nothing to import, a full disk, ``out`` holds something else, or audio that lies in tables is
            to be referred to.
    """
    out = Path(out).absolute()
    settings = options.settings(source.place, source.form)
    _check_target(out, settings)
    if options.reference and source.form == HuggingFaceSource.form:
        _refuse_bytes(source)
    sets = {"train": out / "train", "held-out": out / "held-out"} if options.held_out else {"all": out}
    named = {name: str(folder / MANIFEST if options.reference else folder) for name, folder in sets.items()}
    report = ImportReport(source.place, str(out), named)
    with exclusive(out, wait=False), ExitStack() as stack:
        for folder in {out, *sets.values()}:
            remove_partials(folder)
            settle(folder)
        work = stack.enter_context(WorkList(out))
        scripts = _list(source, work, report)
        report.ignored = dict(source.ignored)
        report.write(out / "import.json", settings)
        job = ImportJob(options, work, sets, None if options.any_script else scripts)
        job.pass_over_imported()
        _take(work, job, options, sets, report, progress)
        job.summarise(report)
        report.write(out / "import.json", settings)
        found = len(work)
    if not report.utterances:
        example = report.problems[0] if report.problems else Problem("", str(out), "holds nothing")
        raise CorpusError(
            f"{source.place}: none of its {max(found, len(report.problems))} {_noun(source)} could be imported; "
            f"the first: {example.where} {example.reason} (all: {out / 'import.json'})"
        )
    return report


def _refuse_bytes(source: Source) -> None:
    """Raise when the first audio lies in its table: only a file that a table names can be referred to."""
    cells = (entry[0].audio for entry in source if not isinstance(entry, Problem))
    first, found = next(cells, None), None
    with suppress(CorpusError):
        found = CellReader().read(first) if isinstance(first, Cell) else None
    if isinstance(found, bytes):
        raise CorpusError(f"{source.place}: holds its audio inside tables: leave --reference out")


def _list(source: Source, work: WorkList, report: ImportReport) -> set[str]:
    """Note what there is to do; return the scripts that the corpus's transcripts are written in."""
    scripts: Counter[str] = Counter()
    for entry in source:
        problem = entry if isinstance(entry, Problem) else work.add(*entry)
        if problem is not None:
            report.problems.append(problem)
        elif not isinstance(entry, Problem) and entry[1].transcript is not None:
            script = script_of(entry[1].transcript.spoken())
            scripts.update([script] if script else [])
    return main_scripts(scripts)


def _take(
    work: WorkList,
    job: ImportJob,
    options: ImportOptions,
    sets: Mapping[str, Path],
    report: ImportReport,
    progress: Progress | None,
) -> None:
    """Read what is to do, and write it."""
    total, done = len(work), work.finished()
    with ExitStack() as stack:
        writers: dict[str, ShardWriter | ReferenceWriter] = {}
        for name, folder in sets.items():
            writers[name] = _writer(folder, options)
            stack.enter_context(writers[name])
        results = stream_in_workers(read_clips, _tasks(work, options), options.workers, size=_size)
        for task, index, clip in _every_segment(results):
            segment = task.segments[index]
            outcome = job.utterance(task.recording, segment, clip) if isinstance(clip, Clip) else clip
            if isinstance(outcome, Problem):
                report.problems.append(outcome)
            elif isinstance(clip, Clip):
                writers[job.set_of(task.recording)].add(outcome, clip.audio)
                report.added += 1
            done += 1
            if progress:
                progress(done, total)


def _writer(folder: Path, options: ImportOptions) -> ShardWriter | ReferenceWriter:
    if options.reference:
        return ReferenceWriter(folder, options.rows_per_shard)
    return ShardWriter(folder, options.rows_per_shard)


def _tasks(work: WorkList, options: ImportOptions) -> Iterator[ReadTask]:
    cells = CellReader()
    for recording, segments in work.todo():
        task = ReadTask(recording, segments, options.max_duration, not options.reference)
        yield _with_data(task, cells) if isinstance(recording.audio, Cell) else task


def _with_data(task: ReadTask, cells: CellReader) -> ReadTask:
    """Return the task with the bytes that lie in a table, or the file that the table names."""
    assert isinstance(task.recording.audio, Cell)
    try:
        found = cells.read(task.recording.audio)
    except CorpusError as error:
        return replace(task, unreadable=str(error))
    if isinstance(found, bytes):
        return replace(task, data=found)
    return replace(task, recording=replace(task.recording, audio=found))


def _every_segment(
    results: Iterator[tuple[ReadTask, tuple[int, Clip | Problem] | WorkerDied]],
) -> Iterator[tuple[ReadTask, int, Clip | Problem]]:
    """Yield each segment's outcome: that of segments whose worker died is a problem."""
    current, left = None, set[int]()
    for task, result in results:
        if task is not current:
            current, left = task, set(range(len(task.segments)))
        if isinstance(result, WorkerDied):
            reason = (
                f"{task.recording.name}: the decoder crashes or hangs on it: export it again as wav or flac"
            )
            for index in sorted(left):
                yield task, index, Problem("unreadable audio", task.segments[index].where, reason)
        else:
            left.discard(result[0])
            yield task, *result


def _size(result: tuple[int, Clip | Problem]) -> int:
    return len(result[1].audio) if isinstance(result[1], Clip) else 0


def _noun(source: Source) -> str:
    return "audio files" if source.form == "folder" else "utterances"


def _check_target(out: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder that holds anything but an earlier run of the same import."""
    if not out.exists():
        return
    if not out.is_dir():
        raise CorpusError(f"{out}: is a file: give a new folder for the shards")
    record = out / "import.json"
    if not record.exists():
        if any(path.name != ".lock" and path.suffix != ".partial" for path in out.iterdir()):
            raise CorpusError(f"{out}: holds other files: give a new or an empty folder for the shards")
        return
    try:
        before = {"format": "folder", "reference": False, **json.loads(record.read_text("utf-8"))["settings"]}
    except (ValueError, KeyError, TypeError):
        raise CorpusError(f"{record}: damaged: remove {out} and import again") from None
    changed = [key for key in settings if before.get(key) != settings[key]]
    if changed:
        key = changed[0]
        raise CorpusError(
            f"{out}: was imported with {key} {before.get(key)!r}, not {settings[key]!r}: use a new folder"
        )
