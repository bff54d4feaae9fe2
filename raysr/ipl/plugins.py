"""The seven plug-ins of the loop: what each is asked, and the names that a configuration may use.

Each is built for every cycle as ``Plugin(config, context)``: ``config`` is its nested class ``Config``,
``context`` a :class:`~raysr.ipl.context.CycleContext`. A user's own is named ``package.module:Class``.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from raysr.config import Slot, Spec
from raysr.corpus.manifest import Manifest
from raysr.corpus.utterance import Utterance
from raysr.ipl.handover import Batches, Start
from raysr.ipl.predictions import Prediction, Predictions
from raysr.pool import Entry, Pool


class Selector(Protocol):
    """Which unlabelled utterances the teachers label in this cycle."""

    def __call__(self, cycle: int, unlabelled: Manifest) -> Iterable[Utterance]: ...


class Builder(Protocol):
    """The teachers, best first, as descriptions that a worker can build; none while the pool is empty."""

    def __call__(self, pool: Pool) -> Sequence[Spec]: ...


class Recogniser(Protocol):
    """Labels everything selected that has no prediction yet: one row an utterance, failures too."""

    def __call__(self, selected: Manifest, teachers: Sequence[Spec]) -> Predictions: ...


class Filter(Protocol):
    """The ids that are not to be trained on, each with the reason; pure over the predictions it is given.

    It is also asked about the canary and about labels whose truth is known, to see what it is worth.
    """

    def __call__(self, predictions: Sequence[Prediction]) -> Mapping[str, str]: ...


class Batcher(Protocol):
    """How kept pseudo-labels and labelled utterances are mixed."""

    def __call__(self, kept: Sequence[Utterance], labelled: Manifest | None) -> Batches: ...


class Initializer(Protocol):
    """The weights that the student starts from."""

    def __call__(self, pool: Pool) -> Start: ...


class Trainer(Protocol):
    """Trains the student and publishes it to the pool under ``context.student``."""

    def __call__(self, start: Start, batches: Batches) -> Entry: ...


SELECTORS = Slot(
    "selector",
    {
        "all": "raysr.ipl.selector:All",
        "random": "raysr.ipl.selector:Random",
        "curriculum": "raysr.ipl.selector:Curriculum",
        "quota": "raysr.ipl.selector:Quota",
        "useful": "raysr.ipl.selector:Useful",
    },
)
BUILDERS = Slot(
    "builder",
    {
        "latest": "raysr.ipl.builder:Latest",
        "best": "raysr.ipl.builder:Best",
        "average": "raysr.ipl.builder:Average",
        "ema": "raysr.ipl.builder:Ema",
        "ensemble": "raysr.ipl.builder:Ensemble",
        "external": "raysr.ipl.builder:External",
    },
)
RECOGNISERS = Slot(
    "recogniser",
    {
        "ray": "raysr.ipl.labelling.ray_recogniser:RayRecogniser",
        "local": "raysr.ipl.labelling.recogniser:LocalRecogniser",
    },
)
FILTERS = Slot(
    "filter",
    {
        "score": "raysr.ipl.filters.score:Score",
        "confidence": "raysr.ipl.filters.score:Confidence",
        "auto": "raysr.ipl.filters.auto:Auto",
        "agreement": "raysr.ipl.filters.agreement:Agreement",
        "lm_agreement": "raysr.ipl.filters.agreement:LmAgreement",
        "character_rate": "raysr.ipl.filters.length:CharacterRate",
        "duration": "raysr.ipl.filters.length:Duration",
        "empty": "raysr.ipl.filters.text:Empty",
        "loop": "raysr.ipl.filters.text:Loop",
        "ended": "raysr.ipl.filters.text:Ended",
        "hallucination": "raysr.ipl.filters.text:Hallucination",
        "script": "raysr.ipl.filters.text:Script",
        "duplicate": "raysr.ipl.filters.duplicate:Duplicate",
    },
)
BATCHERS = Slot("batcher", {"mixed": "raysr.ipl.batcher:Mixed", "temperature": "raysr.ipl.batcher:Tempered"})
INITIALIZERS = Slot(
    "initializer",
    {
        "scratch": "raysr.ipl.initializer:Scratch",
        "previous": "raysr.ipl.initializer:Previous",
        "average": "raysr.ipl.initializer:Average",
    },
)
TRAINERS = Slot("trainer", {"ddp": "raysr.ipl.trainer:DdpTrainer"})
