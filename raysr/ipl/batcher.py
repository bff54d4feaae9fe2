"""Batchers: how labelled and pseudo-labelled utterances are mixed into what a student is trained on."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from raysr.config import Config as Options
from raysr.config import Spec
from raysr.corpus.manifest import Manifest, open_manifest, write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.errors import RunError
from raysr.ipl.context import CycleContext
from raysr.ipl.handover import Batches
from raysr.ipl.weights import WEIGHERS, Weigher, check_weight
from raysr.text.normalise import normalise
from raysr.train.batch import LOSS_WEIGHT


class BatcherConfig(Options):
    """What every batcher takes.

    Attributes:
        rehearse: manifests of labelled speech from elsewhere, such as what the first student was trained on.
            It joins what is labelled, lest a student that adapts to little audio forget the words that are
            not in it (rehearsal: Robins, 1995).
        weight: what a pseudo-label counts in the loss beside a labelled utterance: a number, ``{kind: score}``,
            or a class of yours (see :class:`raysr.ipl.weights.Weigher`).
    """

    rehearse: str | list[str] | None = None
    weight: Annotated[Spec, BeforeValidator(check_weight)] = Spec(kind="constant", value=1.0)


class Mixed:
    """Everything labelled and everything kept; a fixed share of every batch is labelled."""

    class Config(BatcherConfig):
        """``labelled_share``: of a batch's seconds; it keeps a student from believing only itself."""

        labelled_share: float = Field(default=0.3, ge=0, le=1)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.share = config.labelled_share
        self.material = Material(config, context)

    def __call__(self, kept: Sequence[Utterance], labelled: Manifest | None) -> Batches:
        return replace(self.material(kept, labelled), labelled_share=self.share)


class Tempered:
    """Everything labelled and everything kept, in shares that follow from the hours of each source.

    The sources are what is labelled, what is kept and what is rehearsed, each one again by tag where ``by`` names
    one. A source of h hours has a share in proportion to h^(1/T).
    """

    class Config(BatcherConfig):
        """``temperature``: 1 leaves sources as large as they are, more makes small ones larger, ∞ all alike."""

        temperature: float = Field(default=2.0, gt=0)
        by: str | None = None

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config = config
        self.material = Material(config, context)

    def __call__(self, kept: Sequence[Utterance], labelled: Manifest | None) -> Batches:
        batches = self.material(kept, labelled)
        return replace(batches, temperature=self.config.temperature, by=self.config.by)


class Material:
    """Writes a cycle's training manifests: texts normalised, pseudo-labels with their weights."""

    def __init__(self, config: BatcherConfig, context: CycleContext) -> None:
        self.folder = context.folder
        self.rehearsal = open_manifest(config.rehearse) if config.rehearse else ()
        self.weigh: Weigher = WEIGHERS.build(config.weight, context)

    def __call__(self, kept: Sequence[Utterance], labelled: Manifest | None) -> Batches:
        return Batches(
            labelled=_write(self.folder / "labelled.jsonl", labelled or ()),
            pseudo=_write(self.folder / "pseudo.jsonl", self._weighted(kept)),
            rehearsal=_write(self.folder / "rehearsal.jsonl", self.rehearsal),
        )

    def _weighted(self, kept: Sequence[Utterance]) -> list[Utterance]:
        weights = [float(weight) for weight in self.weigh(kept)]
        if len(weights) != len(kept):
            raise RunError(f"batcher.weight: {len(weights)} weights for {len(kept)} kept utterances")
        weighted = []
        for utterance, weight in zip(kept, weights, strict=True):
            if not 0 <= weight < math.inf:
                raise RunError(f"batcher.weight: utterance {utterance.id} weighs {weight}; give 0 or more")
            if weight > 0:
                weighted.append(replace(utterance, custom={**utterance.custom, LOSS_WEIGHT: weight}))
        return weighted


def _write(path: Path, utterances: Iterable[Utterance]) -> Path | None:
    """Write what has a text, normalised; return None when nothing has."""
    texts = ((u, normalise(u.text or "")) for u in utterances)
    usable = [u.with_text(text) for u, text in texts if text]
    write_jsonl(path, usable)
    return path if usable else None
