"""What an import makes of each file: an utterance in one of its sets, or a row that says why not."""

import hashlib
from pathlib import Path
from typing import Any

from raysr.corpus.importers.checks import other_script, too_long
from raysr.corpus.importers.recordings import Recording
from raysr.corpus.importers.report import ImportReport, Problem
from raysr.corpus.importers.scan import Found
from raysr.corpus.importers.transcripts import Transcript
from raysr.corpus.manifest import open_manifest, write_truth
from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError
from raysr.text.normalise import normalise

ORIGINAL_TEXT = "original_text"


class ImportJob:
    """Turns recordings and transcripts into utterances, and knows what the shards hold already."""

    def __init__(
        self,
        settings: dict[str, Any],
        texts: dict[str, Transcript],
        sets: dict[str, Path],
        scripts: set[str] | None,
    ) -> None:
        self._settings = settings
        self._texts = texts
        self._sets = sets
        self._scripts = scripts

    def set_of(self, name: str) -> str:
        """Return the set of an utterance: the same for ever, whatever else is in the folder."""
        if "all" in self._sets:
            return "all"
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
        return "held-out" if place < self._settings["held_out"] else "train"

    def utterance(self, file: Found, recording: Recording) -> Utterance | Problem:
        """Return the utterance of a file, or what is wrong with its transcript."""
        transcript = self._texts.get(file.id)
        text = self._text(transcript)
        problem = self._check(transcript, text, recording.seconds)
        if problem:
            return problem
        custom: dict[str, Any] = {"origin": recording.origin}
        if self._hides(file.id):
            text = None
        elif transcript is not None:
            custom[ORIGINAL_TEXT] = transcript.text
        return Utterance(
            id=file.id,
            audio="",
            duration=recording.seconds,
            sample_rate=recording.sample_rate,
            text=text,
            language=self._settings["language"],
            custom=custom,
        )

    def imported(self) -> set[str]:
        """Return the ids that earlier runs imported; refuse when a transcript has changed since."""
        ids = set()
        for folder in self._sets.values():
            for utterance in open_manifest(sorted(folder.glob("*.parquet"))):
                now = self._texts.get(utterance.id)
                if not self._hides(utterance.id) and utterance.custom.get(ORIGINAL_TEXT) != (
                    now and now.text
                ):
                    raise CorpusError(
                        f"{folder}: '{utterance.id}' was imported with another transcript: use a new folder"
                    )
                ids.add(utterance.id)
        return ids

    def summarise(self, report: ImportReport) -> None:
        """Count what the shards hold, and write the truth kept apart from them."""
        for folder in self._sets.values():
            truth = []
            for utterance in open_manifest(sorted(folder.glob("*.parquet"))):
                hidden = self._text(self._texts.get(utterance.id)) if self._hides(utterance.id) else None
                report.utterances += 1
                report.hours += utterance.duration / 3600
                report.with_text += (utterance.text or hidden) is not None
                if hidden is not None:
                    truth.append((utterance.id, hidden))
            if truth:
                write_truth(folder / "truth.jsonl", truth)

    def _hides(self, name: str) -> bool:
        return self._settings["truth_apart"] and self.set_of(name) != "held-out"

    def _text(self, transcript: Transcript | None) -> str | None:
        if transcript is None:
            return None
        return normalise(transcript.spoken()) if self._settings["normalise_text"] else transcript.text

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
