"""Selectors: which unlabelled utterances are labelled in a cycle.

Each chooses alike whenever it is asked: a resumed cycle has the selection it began with. The run keeps dev and test
audio out of every selection (:mod:`raysr.ipl.held_out`).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from pydantic import Field, field_validator
from rapidfuzz.distance.Levenshtein import normalized_distance

from raysr.config import Config
from raysr.corpus.manifest import Manifest
from raysr.corpus.utterance import Utterance
from raysr.errors import ConfigError
from raysr.ipl.context import CycleContext
from raysr.ipl.draws import draw
from raysr.ipl.filters.quantities import QUANTITIES, score
from raysr.ipl.predictions import Prediction
from raysr.ipl.strata import EDGES, By, Edges, grouped, stratum


class SelectorConfig(Config):
    """What every selector takes.

    Attributes:
        first_cycle: nothing is selected before it; 1 makes cycle 0 a supervised warm-up.
        relabel: share of the utterances labelled in earlier cycles that gets fresh labels; the others keep the last
            ones they have (see :mod:`raysr.ipl.carry`). 0 labels everything once.
    """

    first_cycle: int = Field(default=1, ge=0)
    relabel: float = Field(default=1.0, ge=0, le=1)


class All:
    """Everything, in every cycle."""

    Config = SelectorConfig

    def __init__(self, config: SelectorConfig, context: CycleContext) -> None:
        self.config = config

    def __call__(self, cycle: int, unlabelled: Manifest) -> Iterable[Utterance]:
        return unlabelled if cycle >= self.config.first_cycle else ()


class Random:
    """A share of everything, another one in every cycle."""

    class Config(SelectorConfig):
        share: float = Field(default=0.5, gt=0, le=1)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config = config
        self.salt = f"{context.seed}/{context.cycle}"

    def __call__(self, cycle: int, unlabelled: Manifest) -> Iterable[Utterance]:
        if cycle < self.config.first_cycle:
            return ()
        return unlabelled.filter(lambda u: draw(self.salt, u.id) < self.config.share)


class Curriculum:
    """The same growing share from cycle to cycle, the easy first: what weak teachers label best."""

    class Config(SelectorConfig):
        """How it grows.

        Attributes:
            share: of the utterances in the first cycle that labels.
            grow: so much more in each.
            by: ``duration`` is the short first; ``ease`` those with the best score when they were last labelled, then
                the short ones of those that never were.
        """

        share: float = Field(default=0.4, gt=0, le=1)
        grow: float = Field(default=0.3, ge=0, le=1)
        by: Literal["duration", "ease"] = "duration"

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config, self.context = config, context
        self.share = min(1.0, config.share + config.grow * context.labelling_round)

    def __call__(self, cycle: int, unlabelled: Manifest) -> Iterable[Utterance]:
        if cycle < self.config.first_cycle:
            return ()
        ease = self._ease() if self.config.by == "ease" else {}
        ranked = sorted((u.id not in ease, -ease.get(u.id, 0.0), u.duration, u.id) for u in unlabelled)
        chosen = {name for *_, name in ranked[: round(self.share * len(ranked))]}
        return unlabelled.filter(lambda u: u.id in chosen)

    def _ease(self) -> dict[str, float]:
        last = ((name, score(newest)) for name, (newest, *_) in self.context.earlier.last().items())
        return {name: value for name, value in last if value is not None}


class Quota:
    """So much of each stratum, drawn anew in every cycle: no speaker, room or length has all the say.

    A stratum that has less than its quota gives what it has; others do not fill it up.
    """

    class Config(SelectorConfig):
        """What is chosen.

        Attributes:
            by: ``duration``, ``speaker``, ``language`` or ``tag:NAME``.
            shares: stratum → its share of the hours, relative to the others'; none is equal shares of all strata.
            rest: the share of each stratum that ``shares`` does not name.
            hours: in all; None takes as many as the shares allow.
            edges: of the strata of durations, in seconds; their names are such as ``under 2 s`` and ``2 to 4 s``.
        """

        by: By = "speaker"
        shares: dict[str, float] = Field(default_factory=dict)
        rest: float = Field(default=0.0, ge=0)
        hours: float | None = Field(default=None, gt=0)
        edges: Edges = Field(default_factory=lambda: list(EDGES))

        @field_validator("shares")
        @classmethod
        def _positive(cls, shares: dict[str, float]) -> dict[str, float]:
            if any(share < 0 for share in shares.values()) or (shares and not sum(shares.values())):
                raise ValueError("shares are not negative, and one is above 0")
            return shares

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config = config
        self.salt = f"{context.seed}/{context.cycle}/quota"

    def __call__(self, cycle: int, unlabelled: Manifest) -> Iterable[Utterance]:
        if cycle < self.config.first_cycle:
            return ()
        c = self.config
        groups = grouped(
            (stratum(u, c.by, c.edges), (draw(self.salt, u.id), u.id, u.duration)) for u in unlabelled
        )
        shares = self._shares(groups)
        there = {name: sum(seconds for *_, seconds in groups[name]) for name in shares}
        seconds = (
            3600 * c.hours if c.hours else min((there[n] / share for n, share in shares.items()), default=0)
        )
        chosen = {
            name for group, share in shares.items() for name in _first(sorted(groups[group]), seconds * share)
        }
        return unlabelled.filter(lambda u: u.id in chosen)

    def _shares(self, groups: Mapping[str, object]) -> dict[str, float]:
        """Return the share of each stratum that has one; they sum to 1."""
        c = self.config
        strange = sorted(c.shares.keys() - groups.keys())
        if groups and strange:
            known = ", ".join(sorted(groups)[:10])
            raise ConfigError(f"selector.shares: no utterance has {c.by} '{strange[0]}'; there are {known}")
        found = {name: c.shares.get(name, c.rest) if c.shares else 1.0 for name in groups}
        total = sum(found.values())
        return {name: share / total for name, share in found.items() if share}


class Useful:
    """Those that teach most, by how they were last labelled: neither hopeless nor known by heart.

    A student learns little from labels that its teacher is sure of already, and wrong things from those that it
    guesses: the middle band of a quantity is selected, ranked over all utterances that have one. What was never
    labelled is always selected; of what lies outside the band a share is drawn, since teachers improve.
    """

    class Config(SelectorConfig):
        """What is selected.

        Attributes:
            by: ``score`` or ``confidence`` of the last label; ``drift``: how far it lies from the one before, in
                characters. Labels that still move are being learned, those that are all new each time are guesses.
            band: from and to which share of the utterances, the least sure (or most drifting) being at 0.
            explore: share of the others, another one in every cycle.
        """

        by: Literal["score", "confidence", "drift"] = "score"
        band: tuple[float, float] = (0.15, 0.9)
        explore: float = Field(default=0.1, ge=0, le=1)

        @field_validator("band")
        @classmethod
        def _ordered(cls, band: tuple[float, float]) -> tuple[float, float]:
            if not 0 <= band[0] < band[1] <= 1:
                raise ValueError("a band is two shares from 0 to 1, the smaller first")
            return band

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config, self.context = config, context
        self.salt = f"{context.seed}/{context.cycle}/explore"

    def __call__(self, cycle: int, unlabelled: Manifest) -> Iterable[Utterance]:
        if cycle < self.config.first_cycle:
            return ()
        sure = self._sure()
        ranked = sorted((sure[u.id], u.id) for u in unlabelled if u.id in sure)
        low, high = (round(edge * len(ranked)) for edge in self.config.band)
        outside = {name for _, name in [*ranked[:low], *ranked[high:]]}
        return unlabelled.filter(lambda u: u.id not in outside or draw(self.salt, u.id) < self.config.explore)

    def _sure(self) -> dict[str, float]:
        if self.config.by == "drift":
            pairs = self.context.earlier.last(2).items()
            return {name: -_drift(*rows) for name, rows in pairs if len(rows) == 2}
        measure = QUANTITIES[self.config.by]
        last = ((name, measure(newest)) for name, (newest, *_) in self.context.earlier.last().items())
        return {name: value for name, value in last if value is not None}


def _drift(one: Prediction, other: Prediction) -> float:
    """Return the edits between two labels by the length of the longer."""
    texts = [p.label.text if p.label else "" for p in (one, other)]
    return normalized_distance(*texts)


def _first(ranked: Iterable[tuple[float, str, float]], seconds: float) -> Iterator[str]:
    """Yield names as long as their seconds fit."""
    for _, name, duration in ranked:
        seconds -= duration
        if seconds < -1e-6:
            return
        yield name
