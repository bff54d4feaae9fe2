"""From a cycle's batches to the sources that a training draws from, each in its share."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from raysr.corpus.utterance import Utterance
from raysr.ipl.handover import Batches
from raysr.train.sampler import temperature_shares


@dataclass(frozen=True)
class TrainingSource:
    """Utterances and their share of every batch's seconds."""

    name: str
    utterances: Sequence[Utterance]
    share: float


def training_sources(batches: Batches, parts: Mapping[str, Sequence[Utterance]]) -> list[TrainingSource]:
    """Return the sources that ``batches`` asks for, of its parts ``labelled``, ``pseudo`` and ``rehearsal``.

    With a temperature these are the parts, each by tag where a tag is named; without one rehearsal is labelled.
    """
    if batches.temperature is not None:
        groups = dict(_by_tag(parts, batches.by))
        hours = [sum(u.duration for u in group) / 3600 for group in groups.values()]
        shares = temperature_shares(hours, batches.temperature) if groups else []
        return [
            TrainingSource(name, group, share)
            for (name, group), share in zip(groups.items(), shares, strict=True)
        ]
    labelled, pseudo = [*parts["labelled"], *parts["rehearsal"]], parts["pseudo"]
    if not labelled or not pseudo:
        return [
            TrainingSource("labelled", labelled, 1.0) if labelled else TrainingSource("pseudo", pseudo, 1.0)
        ]
    share = batches.labelled_share
    both = [TrainingSource("labelled", labelled, share), TrainingSource("pseudo", pseudo, 1 - share)]
    return [source for source in both if source.share > 0]


def _by_tag(
    parts: Mapping[str, Sequence[Utterance]], tag: str | None
) -> Iterator[tuple[str, list[Utterance]]]:
    for part, utterances in parts.items():
        groups: dict[str, list[Utterance]] = {}
        for utterance in utterances:
            value = utterance.tags.get(tag) if tag else None
            groups.setdefault(part if value is None else f"{part}, {tag} {value}", []).append(utterance)
        yield from groups.items()
