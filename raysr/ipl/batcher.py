"""Batchers: how labelled and pseudo-labelled utterances are mixed into what a student is trained on."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import Field

from raysr.config import Config as Options
from raysr.corpus.manifest import Manifest, open_manifest, write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.ipl.context import CycleContext
from raysr.ipl.handover import Batches
from raysr.text.normalise import normalise


class Mixed:
    """Everything labelled and everything kept; a fixed share of every batch is labelled."""

    class Config(Options):
        """How a batch is made up.

        Attributes:
            labelled_share: of a batch's seconds; it keeps a student from believing only itself.
            rehearse: manifests of labelled speech from elsewhere, such as what the first student was trained on.
                It joins what is labelled, lest a student that adapts to little audio forget the words that are
                not in it (rehearsal: Robins, 1995).
        """

        labelled_share: float = Field(default=0.3, ge=0, le=1)
        rehearse: str | list[str] | None = None

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config = config
        self.folder = context.folder
        self.rehearsal = open_manifest(config.rehearse) if config.rehearse else ()

    def __call__(self, kept: Sequence[Utterance], labelled: Manifest | None) -> Batches:
        return Batches(
            labelled=_write(self.folder / "labelled.jsonl", labelled or ()),
            pseudo=_write(self.folder / "pseudo.jsonl", kept),
            labelled_share=self.config.labelled_share,
            rehearsal=_write(self.folder / "rehearsal.jsonl", self.rehearsal),
        )


def _write(path: Path, utterances: Iterable[Utterance]) -> Path | None:
    """Write what has a text, normalised; return None when nothing has."""
    texts = ((u, normalise(u.text or "")) for u in utterances)
    usable = [u.with_text(text) for u, text in texts if text]
    write_jsonl(path, usable)
    return path if usable else None
