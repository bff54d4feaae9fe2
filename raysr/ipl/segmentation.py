"""Cutting the long recordings of a run's unlabelled audio: once, before anything is selected, resumed where it stopped.

``recordings.jsonl`` says of every long recording where its speech is, or why it could not be cut; ``unlabelled.jsonl``
is the corpus with segments in the place of those recordings, the same in every cycle; ``segments.json`` sums up.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from raysr.audio.speech_segments import Segment, SegmentConfig
from raysr.corpus.cutting import Cut, CutTask, cut
from raysr.corpus.disk import naming_folder
from raysr.corpus.manifest import Manifest, open_manifest, write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.corpus.workers import WorkerDied, run_in_workers
from raysr.errors import RunError
from raysr.ipl.handover import write_json
from raysr.ipl.labelling.attempts import Attempts
from raysr.ipl.progress import Progress

CUTTING = "finding its speech"
PATIENCE_S = 60.0
"""That a recording is given beyond its own length, of which the detector takes a thousandth."""
OUTAGE = 8
"""Recordings in a row whose disk or store does not answer: it is gone, and they are not damaged."""


class Segmentation:
    """Cuts the long recordings of one corpus, in ``folder``; with ``use_ray`` all over the cluster."""

    def __init__(self, folder: Path, config: SegmentConfig, progress: Progress, use_ray: bool) -> None:
        self.folder, self.config, self.progress, self.use_ray = folder, config, progress, use_ray
        self._journal = folder / "recordings.jsonl"

    def __call__(self, corpus: Manifest) -> Manifest:
        """Return the corpus with segments in the place of long recordings.

        Raises:
            CorpusError: the folder cannot be written.
            RunError: the cluster is lost, or a disk or store answers no more; what was cut stays.
        """
        summary, made = self.folder / "segments.json", self.folder / "unlabelled.jsonl"
        if self.config.longer_than is None:
            return corpus
        if not summary.exists():
            counts = self._cut_all(corpus)
            if counts["recordings"]:
                write_jsonl(made, self._replaced(corpus))
            write_json(summary, counts)
        return open_manifest(made) if made.exists() else corpus

    def _is_long(self, utterance: Utterance) -> bool:
        assert self.config.longer_than is not None
        return utterance.duration > self.config.longer_than

    def _cut_all(self, corpus: Manifest) -> dict[str, Any]:
        """Cut what is not cut yet, and return the sums over all."""
        recordings = corpus.filter(self._is_long)
        total, done = len(recordings), self._places()
        tasks = (CutTask(u, self.config) for u in recordings if u.id not in done)
        count = len(done)
        if count < total:
            with self.progress.track("finding speech", total) as update, self._appending() as file:
                for found in _settled((_on_ray if self.use_ray else _here)(tasks, self.folder)):
                    file.write(_line(found))
                    file.flush()
                    count += 1
                    update(count, f"{found.duration / 60:.0f} min, {len(found.segments)} segments")
        return self._summary()

    def _summary(self) -> dict[str, Any]:
        cuts = [found for _, found in self._read()]
        cut_s, speech_s = sum(c.duration for c in cuts if not c.error), sum(c.speech for c in cuts)
        counts = {
            "recordings": len(cuts),
            "segments": sum(len(c.segments) for c in cuts),
            "not_cut": sum(c.error is not None for c in cuts),
            "without_speech": sum(c.error is None and not c.segments for c in cuts),
            "speech_h": round(speech_s / 3600, 3),
            "left_out_h": round((cut_s - speech_s) / 3600, 3),
        }
        if cuts:
            self.progress.say(
                f"{counts['recordings']} long recordings cut into {counts['segments']} segments: "
                f"{counts['speech_h']:.2f} h of speech, {counts['left_out_h']:.2f} h left out, "
                f"{counts['not_cut']} could not be cut"
            )
        return counts

    def _replaced(self, corpus: Manifest) -> Iterator[Utterance]:
        places = self._places()
        with self._journal.open("rb") as file:
            for utterance in corpus:
                if utterance.id in places and self._is_long(utterance):
                    file.seek(places[utterance.id])
                    yield from _cut(file.readline()).utterances(utterance)
                else:
                    yield utterance

    def _appending(self) -> Any:
        """Open the journal behind its last whole line."""
        with naming_folder(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self._journal.open("ab")
            file.truncate(max((place + length for place, length, _ in self._lines()), default=0))
            return file

    def _places(self) -> dict[str, int]:
        """Return by id where in the journal a recording's line begins."""
        return {found.id: place for place, found in self._read()}

    def _read(self) -> Iterator[tuple[int, Cut]]:
        return ((place, found) for place, _, found in self._lines())

    def _lines(self) -> Iterator[tuple[int, int, Cut]]:
        """Yield place, length and content of every line that was written whole."""
        if not self._journal.exists():
            return
        with self._journal.open("rb") as file:
            place = 0
            for line in file:
                if not line.endswith(b"\n"):
                    return
                yield place, len(line), _cut(line)
                place += len(line)


def _settled(cuts: Iterable[Cut]) -> Iterator[Cut]:
    """Hold back what a disk or store did not answer for until it has answered for another, or all are through.

    Raises:
        RunError: it answers no more; what is held back is cut another time.
    """
    unread: list[Cut] = []
    for found in cuts:
        if found.passing:
            unread.append(found)
            if len(unread) == OUTAGE:
                raise RunError(
                    f"{OUTAGE} long recordings one after the other could not be read to be cut, "
                    f"the last: {found.error}; start again to go on from here"
                )
        else:
            yield from (*unread, found)
            unread.clear()
    yield from unread


def _line(found: Cut) -> bytes:
    record = {
        "id": found.id,
        "duration": found.duration,
        "speech": round(found.speech, 3),
        "segments": [[round(start, 6), round(end, 6)] for start, end in found.segments],
        "error": found.error,
    }
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def _cut(line: bytes) -> Cut:
    record = json.loads(line)
    segments = [Segment(*pair) for pair in record["segments"]]
    return Cut(record["id"], record["duration"], segments, record["error"])


def _here(tasks: Iterable[CutTask], folder: Path) -> Iterator[Cut]:
    """Cut in processes of this machine."""
    for task, found in run_in_workers(cut, tasks, os.cpu_count() or 1):
        if isinstance(found, WorkerDied):
            u = task.recording
            found = Cut(u.id, u.duration, error=f"utterance {u.id}: {CUTTING} took the process down")
        yield found


def _on_ray(tasks: Iterable[CutTask], folder: Path) -> Iterator[Cut]:
    """Cut in tasks of one CPU each, as many at a time as the cluster has room for, and a few that wait."""
    import ray
    import ray.exceptions

    # what killed an earlier driver's workers is not held against anybody
    shutil.rmtree(folder / "attempts", ignore_errors=True)
    remote = ray.remote(num_cpus=1, max_retries=-1)(_attempt)
    waiting: list[Any] = []
    try:
        for task in tasks:
            waiting.append(remote.remote(task, folder / "attempts"))
            if len(waiting) >= 2 * max(1, int(ray.cluster_resources().get("CPU", 1))):
                (ready,), waiting = ray.wait(waiting, num_returns=1)
                yield ray.get(ready)
        while waiting:
            (ready,), waiting = ray.wait(waiting, num_returns=1)
            yield ray.get(ready)
    except ray.exceptions.RayError as error:
        raise RunError(f"cutting long recordings failed: {error}; start again to go on from here") from error


def _attempt(task: CutTask, folder: Path) -> Cut:
    """Cut a recording, unless doing so has taken the process down before."""
    u = task.recording
    with Attempts(folder, retries=1, timeout=PATIENCE_S + u.duration).at([u.id]) as attempt:
        given_up = attempt.given_up(CUTTING).get(u.id)
        if given_up:
            return Cut(u.id, u.duration, error=f"utterance {u.id}: {given_up.reason}")
        attempt.step([u.id], CUTTING)
        return cut(task)
