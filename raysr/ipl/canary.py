"""The canary: held-out transcribed utterances that a cycle's teachers label too, to see what their labels are worth.

They go through the recogniser together with what is selected, in one labelling, under ids of their own and without
their transcripts. Their predictions then move to the cycle's folder ``canary``, beside their references.
"""

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from raysr.config import Spec
from raysr.corpus.manifest import Manifest, open_manifest, write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.ipl.plugins import Recogniser
from raysr.ipl.predictions import Prediction, Predictions
from raysr.ipl.voting import NEAREST, Vote
from raysr.text.normalise import normalise

MARK = "canary:"
REFERENCES = "references.jsonl"


class Judged(NamedTuple):
    """A prediction and what was really said, normalised as labels are."""

    prediction: Prediction
    reference: str


def draw_canary(dev: Iterable[Utterance], count: int, seed: int) -> list[Utterance]:
    """Return ``count`` transcribed utterances, the same ones whatever their order, with marked ids and plain texts."""
    spoken = (replace(u, id=MARK + u.id, text=normalise(u.text)) for u in dev if u.text)
    drawn = heapq.nsmallest(
        count,
        (u for u in spoken if u.text),
        key=lambda u: hashlib.sha256(f"{seed}/{u.id}".encode()).digest(),
    )
    return sorted(drawn, key=lambda u: u.id)


def read_canary(folder: Path, vote: Vote = NEAREST) -> list[Judged]:
    """Read a cycle's canary in the order of the ids; nothing where the cycle has none, or has not labelled yet."""
    references = canary_utterances(folder)
    return [Judged(p, references[p.id].text or "") for p in Predictions(folder, vote) if p.id in references]


def canary_utterances(folder: Path) -> dict[str, Utterance]:
    """Return the canary's utterances by their marked ids, with their references as texts."""
    path = folder / REFERENCES
    return {u.id: u for u in open_manifest(path)} if path.exists() else {}


class WithCanary:
    """A recogniser that labels the canary along with what is selected.

    Args:
        recogniser: labels both; it takes them for one manifest.
        utterances: the canary, of :func:`draw_canary`.
        folder: that its predictions and references go to.
    """

    def __init__(self, recogniser: Recogniser, utterances: Sequence[Utterance], folder: Path) -> None:
        self.recogniser, self.utterances, self.folder = recogniser, utterances, folder

    def __call__(self, selected: Manifest, teachers: Sequence[Spec]) -> Predictions:
        """Label; in a cycle that selects nothing there are no labels for the canary to judge."""
        if not self.utterances or not len(selected):
            return self.recogniser(selected, teachers)
        write_jsonl(self.folder / REFERENCES, self.utterances)
        canary = Predictions(self.folder)
        canary.discard_broken()
        done = canary.ids()
        missing = [u.with_text(None) for u in self.utterances if u.id not in done]
        predictions = self.recogniser(selected + open_manifest(missing), teachers)
        predictions.move({u.id for u in self.utterances}, canary)  # also what a killed move has left
        return predictions
