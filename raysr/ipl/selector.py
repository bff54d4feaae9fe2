"""Selectors: which unlabelled utterances are labelled in a cycle."""

import hashlib
from collections.abc import Iterable

from pydantic import Field

from raysr.config import Config
from raysr.corpus.manifest import Manifest
from raysr.corpus.utterance import Utterance
from raysr.ipl.context import CycleContext


class SelectorConfig(Config):
    """``first_cycle``: nothing is selected before it; 1 makes cycle 0 a supervised warm-up."""

    first_cycle: int = Field(default=1, ge=0)


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
        return unlabelled.filter(lambda u: _draw(self.salt, u.id) < self.config.share)


class Curriculum:
    """The same growing share from cycle to cycle, short utterances first: what weak teachers label best."""

    class Config(SelectorConfig):
        """``share`` of the utterances in the first cycle that labels, then ``grow`` more in each."""

        share: float = Field(default=0.4, gt=0, le=1)
        grow: float = Field(default=0.3, ge=0, le=1)

    def __init__(self, config: Config, context: CycleContext) -> None:
        self.config = config
        self.share = min(1.0, config.share + config.grow * context.labelling_round)

    def __call__(self, cycle: int, unlabelled: Manifest) -> Iterable[Utterance]:
        if cycle < self.config.first_cycle:
            return ()
        lengths = sorted((u.duration, u.id) for u in unlabelled)
        chosen = {name for _, name in lengths[: round(self.share * len(lengths))]}
        return unlabelled.filter(lambda u: u.id in chosen)


def _draw(salt: str, name: str) -> float:
    """Return a number in [0, 1) that depends on nothing but its arguments."""
    digest = hashlib.sha256(f"{salt}/{name}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)
