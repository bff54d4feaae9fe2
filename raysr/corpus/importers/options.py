"""What a user may say of an import, whatever the form of the corpus."""

from dataclasses import dataclass
from typing import Any

from raysr.errors import CorpusError


@dataclass(frozen=True)
class ImportOptions:
    """How a corpus is imported.

    Attributes:
        held_out: the share of recordings, chosen by a hash of their ids, that goes to ``out/held-out``; the
            others go to ``out/train``. 0 puts all of them into ``out``. Segments of one recording stay together.
        truth_apart: keep transcripts out of the shards, in a ``truth.jsonl`` beside them, for scoring;
            the held-out set keeps them in its shards.
        max_duration: in seconds; longer utterances are not taken.
        normalise_text: drop stage directions and bring transcripts to raysr's form; the original stays in
            ``custom``. Either way an utterance whose transcript has no words is not taken.
        any_script: take transcripts whose script differs from that of the others.
        language: label of every utterance that the corpus gives none.
        reference: write ``manifest.jsonl`` files that name the audio where it lies, in place of shards.
        rows_per_shard: utterances a shard, at most.
        workers: processes that decode.
    """

    held_out: float = 0.0
    truth_apart: bool = False
    max_duration: float = 120.0
    normalise_text: bool = True
    any_script: bool = False
    language: str | None = None
    reference: bool = False
    rows_per_shard: int = 1024
    workers: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise CorpusError(f"held-out share {self.held_out:g}: give a number from 0 to below 1")

    def settings(self, place: str, form: str) -> dict[str, Any]:
        """Return what must be the same for a rerun to go on."""
        return {
            "source": place,
            "format": form,
            "held_out": self.held_out,
            "truth_apart": self.truth_apart,
            "normalise_text": self.normalise_text,
            "language": self.language,
            "reference": self.reference,
        }
