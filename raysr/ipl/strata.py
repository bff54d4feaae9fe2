"""Strata: utterances grouped by length, speaker, language or tag, so that no group is starved or crowds out others."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Annotated, TypeVar

from pydantic import AfterValidator

from raysr.corpus.utterance import Utterance

EDGES = (2.0, 4.0, 8.0, 16.0)
UNKNOWN = "unknown"
K = TypeVar("K")
T = TypeVar("T")


def _known(by: str) -> str:
    if by not in ("duration", "speaker", "language") and not re.fullmatch("tag:.+", by):
        raise ValueError("give duration, speaker, language or tag:NAME")
    return by


By = Annotated[str, AfterValidator(_known)]
"""What a stratum is of: ``duration``, ``speaker``, ``language`` or ``tag:NAME``."""


def _rising(edges: list[float]) -> list[float]:
    if not edges or sorted(set(edges)) != edges:
        raise ValueError("edges rise, and there is one or more")
    return edges


Edges = Annotated[list[float], AfterValidator(_rising)]
"""Between the strata of durations, in seconds."""


def stratum(utterance: Utterance, by: str, edges: Sequence[float] = EDGES) -> str:
    """Return the name of an utterance's stratum; ``edges`` are those of durations, in seconds, rising."""
    if by == "duration":
        return duration_stratum(utterance.duration, edges)
    value = utterance.tags.get(by[4:]) if by.startswith("tag:") else getattr(utterance, by)
    return value or UNKNOWN


def duration_stratum(seconds: float, edges: Sequence[float] = EDGES) -> str:
    """Return the name of the stratum that a duration lies in; one on an edge is in the longer of the two."""
    place = bisect_right(edges, seconds)
    if place == 0:
        return f"under {edges[0]:g} s"
    return (
        f"{edges[place - 1]:g} to {edges[place]:g} s" if place < len(edges) else f"{edges[-1]:g} s and more"
    )


def grouped(items: Iterable[tuple[K, T]]) -> dict[K, list[T]]:
    """Return what comes under each name, in its order."""
    groups: dict[K, list[T]] = {}
    for name, item in items:
        groups.setdefault(name, []).append(item)
    return groups
