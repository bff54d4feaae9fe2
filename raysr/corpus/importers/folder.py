"""Importing a folder of audio, with or without transcripts, into Parquet shards."""

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from raysr.corpus.disk import exclusive, remove_partials
from raysr.corpus.importers.checks import scripts_in_use
from raysr.corpus.importers.job import ImportJob
from raysr.corpus.importers.recordings import Recording, read_recording
from raysr.corpus.importers.report import ImportReport, Problem
from raysr.corpus.importers.scan import Found, scan
from raysr.corpus.importers.transcripts import match
from raysr.corpus.shards import ShardWriter
from raysr.errors import CorpusError


def import_folder(
    source: str | Path,
    out: str | Path,
    transcripts: str | Path | None = None,
    *,
    held_out: float = 0.0,
    truth_apart: bool = False,
    max_duration: float = 120.0,
    normalise_text: bool = True,
    any_script: bool = False,
    language: str | None = None,
    rows_per_shard: int = 1024,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Write the audio files below ``source`` as shards in ``out``, and ``import.json`` with the outcome.

    A rerun goes on: files already in the shards are passed over, mended and new ones are added.

    Args:
        source: a folder; every file that PyAV reads is an utterance, named by its path without the suffix.
        out: a new or empty folder, or one that an earlier run of the same import left.
        transcripts: a file of transcripts (see :mod:`raysr.corpus.importers.transcripts`); None looks for a
            ``.txt`` beside each audio file.
        held_out: the share of files, chosen by a hash of their ids, that goes to ``out/held-out``; the others
            go to ``out/train``. 0 puts all of them into ``out``.
        truth_apart: keep transcripts out of the shards, in a ``truth.jsonl`` beside them, for scoring;
            the held-out set keeps them in its shards.
        max_duration: in seconds; longer files are not taken.
        normalise_text: drop stage directions and bring transcripts to raysr's form; the original stays in
            ``custom``. Either way a file whose transcript has no words is not taken.
        any_script: take transcripts whose script differs from that of the others.
        language: label of every utterance.
        rows_per_shard: utterances a shard, at most.
        workers: threads that decode.
        progress: told how many of how many files are done.

    Raises:
        CorpusError: nothing to import, a full disk, or ``out`` holds something else.
    """
    source, out = Path(source).absolute(), Path(out).absolute()
    transcripts = Path(transcripts).absolute() if transcripts is not None else None
    if not 0 <= held_out < 1:
        raise CorpusError(f"held-out share {held_out:g}: give a number from 0 to below 1")
    found = scan(source, leave_out=(out, *([transcripts] if transcripts else [])))
    settings = {
        "source": str(source),
        "held_out": held_out,
        "truth_apart": truth_apart,
        "normalise_text": normalise_text,
        "language": language,
    }
    _check_target(out, settings)
    texts, text_problems = match(found.files, transcripts)
    sets = {"train": out / "train", "held-out": out / "held-out"} if held_out else {"all": out}
    report = ImportReport(
        str(source),
        str(out),
        {name: str(folder) for name, folder in sets.items()},
        ignored=found.ignored,
        problems=found.problems + text_problems,
    )
    scripts = None if any_script else scripts_in_use(transcript.spoken() for transcript in texts.values())
    job = ImportJob(settings, texts, sets, scripts)
    with exclusive(out, wait=False):
        for folder in sets.values():
            remove_partials(folder)
        report.write(out / "import.json", settings)
        there = job.imported()
        todo = [file for file in found.files if file.id not in there]
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(ShardWriter(folder, rows_per_shard))
                for name, folder in sets.items()
            }
            first = len(found.files) - len(todo) + 1
            for done, (file, recording) in enumerate(_read(todo, max_duration, workers), first):
                outcome = job.utterance(file, recording) if isinstance(recording, Recording) else recording
                if isinstance(outcome, Problem):
                    report.problems.append(outcome)
                elif isinstance(recording, Recording):
                    writers[job.set_of(file.id)].add(outcome, recording.audio)
                    report.added += 1
                if progress:
                    progress(done, len(found.files))
        job.summarise(report)
        report.write(out / "import.json", settings)
    if not report.utterances:
        example = report.problems[0]
        raise CorpusError(
            f"{source}: none of its {len(found.files)} audio files could be imported; the first: "
            f"{example.where} {example.reason} (all: {out / 'import.json'})"
        )
    return report


def _read(
    files: Sequence[Found], max_seconds: float, workers: int
) -> Iterator[tuple[Found, Recording | Problem]]:
    """Yield files with their recordings, in order, reading a few ahead: memory holds those few only."""
    with ThreadPoolExecutor(workers) as threads:
        ahead: deque[tuple[Found, Future[Recording | Problem]]] = deque()
        waiting = iter(files)
        while True:
            while len(ahead) < 2 * workers and (file := next(waiting, None)):
                ahead.append((file, threads.submit(read_recording, file, max_seconds)))
            if not ahead:
                return
            file, future = ahead.popleft()
            yield file, future.result()


def _check_target(out: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder that holds anything but an earlier run of the same import."""
    if not out.exists():
        return
    if not out.is_dir():
        raise CorpusError(f"{out}: is a file: give a new folder for the shards")
    record = out / "import.json"
    if not record.exists():
        if any(path.name != ".lock" for path in out.iterdir()):
            raise CorpusError(f"{out}: holds other files: give a new or an empty folder for the shards")
        return
    try:
        before = json.loads(record.read_text(encoding="utf-8"))["settings"]
    except (ValueError, KeyError, TypeError):
        raise CorpusError(f"{record}: damaged: remove {out} and import again") from None
    changed = [key for key in settings if before.get(key) != settings[key]]
    if changed:
        key = changed[0]
        raise CorpusError(
            f"{out}: was imported with {key} {before.get(key)!r}, not {settings[key]!r}: use a new folder"
        )
