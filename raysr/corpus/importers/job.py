"""What an import makes of each segment: an utterance in one of its sets, or a row that says why not."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raysr.corpus.importers.checks import other_script, too_long
from raysr.corpus.importers.options import ImportOptions
from raysr.corpus.importers.recordings import Clip
from raysr.corpus.importers.references import read_references
from raysr.corpus.importers.report import ImportReport, Problem
from raysr.corpus.importers.source import Recording, Segment
from raysr.corpus.importers.transcripts import Transcript
from raysr.corpus.importers.worklist import WorkList
from raysr.corpus.manifest import open_manifest, write_truth
from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError
from raysr.text.normalise import normalise

ORIGINAL_TEXT = "original_text"


class ImportJob:
    """Turns clips and transcripts into utterances, and knows what the sets hold already."""

    def __init__(
        self, options: ImportOptions, work: WorkList, sets: Mapping[str, Path], scripts: set[str] | None
    ) -> None:
        self._options = options
        self._work = work
        self._sets = sets
        self._scripts = scripts

    def set_of(self, recording: Recording) -> str:
        """Return the set of a recording: the same for ever, whatever else is in the corpus."""
        if "all" in self._sets:
            return "all"
        place = int.from_bytes(hashlib.sha256(recording.group.encode()).digest()[:8], "big") / 2**64
        return "held-out" if place < self._options.held_out else "train"

    def utterance(self, recording: Recording, segment: Segment, clip: Clip) -> Utterance | Problem:
        """Return the utterance of a segment, or what is wrong with its transcript."""
        text = self._text(segment.transcript)
        problem = self._check(segment.transcript, text, clip.seconds)
        if problem:
            return problem
        custom: dict[str, Any] = {**segment.custom, "origin": clip.origin}
        custom.pop(ORIGINAL_TEXT, None)
        if self._hides(self.set_of(recording)):
            text = None
        elif segment.transcript is not None:
            custom[ORIGINAL_TEXT] = segment.transcript.text
        refers = self._options.reference
        return Utterance(
            id=segment.id,
            audio=str(recording.audio) if refers else "",
            start=segment.start if refers else 0.0,
            duration=clip.seconds,
            sample_rate=clip.sample_rate,
            text=text,
            speaker=segment.speaker,
            language=segment.language or self._options.language,
            tags=segment.tags,
            custom=custom,
        )

    def pass_over_imported(self) -> None:
        """Strike from the work what earlier runs imported; refuse when a transcript has changed since."""
        for name, folder in self._sets.items():
            for utterance in self._stored(folder):
                segment = self._work.segment(utterance.id)
                now = segment.transcript.text if segment and segment.transcript else None
                if not self._hides(name) and utterance.custom.get(ORIGINAL_TEXT) != now:
                    raise CorpusError(
                        f"{folder}: '{utterance.id}' was imported with another transcript: use a new folder"
                    )
                self._work.finish(utterance.id)

    def summarise(self, report: ImportReport) -> None:
        """Count what the sets hold, and write the truth kept apart from them."""
        for name, folder in self._sets.items():
            for utterance in self._stored(folder):
                report.utterances += 1
                report.hours += utterance.duration / 3600
                report.with_text += utterance.text is not None
            if self._hides(name):
                truth = sum(1 for _ in self._truth(folder))
                report.with_text += truth
                if truth:
                    write_truth(folder / "truth.jsonl", self._truth(folder))

    def _stored(self, folder: Path) -> Iterator[Utterance]:
        if self._options.reference:
            return read_references(folder)
        return iter(open_manifest(sorted(folder.glob("*.parquet"))))

    def _truth(self, folder: Path) -> Iterator[tuple[str, str]]:
        for utterance in self._stored(folder):
            segment = self._work.segment(utterance.id)
            text = self._text(segment.transcript if segment else None)
            if text is not None:
                yield utterance.id, text

    def _hides(self, name: str) -> bool:
        return self._options.truth_apart and name != "held-out"

    def _text(self, transcript: Transcript | None) -> str | None:
        if transcript is None:
            return None
        return normalise(transcript.spoken()) if self._options.normalise_text else transcript.text

    def _check(self, transcript: Transcript | None, text: str | None, seconds: float) -> Problem | None:
        if transcript is None or text is None:
            return None
        if not normalise(transcript.spoken()):
            mend = "write what is said, or remove it to import the audio without text"
            return Problem("no words", transcript.where, f"'{transcript.text}' has no words: {mend}")
        foreign = other_script(transcript.spoken(), self._scripts) if self._scripts is not None else None
        if foreign:
            return Problem("other script", transcript.where, foreign)
        long = too_long(text, seconds)
        return Problem("transcript too long", transcript.where, long) if long else None
