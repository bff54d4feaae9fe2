"""A generated grammar of meeting-like English: sentence frames, filled at random, with names.

Sentences are already as :func:`raysr.text.normalise.normalise` leaves them: lower case, letters, apostrophes.
"""

import random
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from raysr.corpus.demo.words import KNOWN_NAMES, OPEN_NAMES, SLOTS

FRAMES = (
    "{person} will {act} the {document} {when}",
    "{opener} {person} will send the {document} to {person}",
    "could somebody from the {team} team call {person} {when}",
    "let's {act} the {document} before we talk about {topic}",
    "the {thing} in {place} is {quality}",
    "{opener} the {thing} has been {quality} since {day}",
    "we need {amount} more for the {project} project",
    "the {customer} in {place} wants to see the {document} {when}",
    "{person} and {person} are travelling to {place} {when}",
    "i'll take {travel} from {place} to {place}",
    "can you hear me {person} or is the {thing} {quality}",
    "the next meeting about {topic} is in {room} {when}",
    "{person} moved the meeting with the {customer} to {day}",
    "please {mend} the {thing} in {room}",
    "who is going to {mend} the {thing} {when}",
    "{opener} we should {act} the {document} {because}",
    "sales in {place} went up by {amount} in {month}",
    "costs for {project} went down by {amount}",
    "my notes say that {person} promised to {act} the {document}",
    "did {person} already {act} the {document} for the {customer}",
    "let me share my screen and show you the {thing}",
    "{opener} i don't understand why the {document} is {quality}",
    "the {team} team in {place} is waiting for {person}",
    "there will be {food} in {room} {when}",
    "{person} asked whether {project} is {quality}",
    "we can't {mend} the {thing} {because}",
    "thank you {person} that was {quality}",
    "{opener} nobody told the {team} team about {topic}",
    "remember to bring {food} for the visitors from {place}",
    "{project} starts {when} and takes {amount}",
    "the question from the {customer} was about {topic}",
    "{person} has a meeting with the {team} team at {hour}",
    "everyone agreed that the {document} from {place} looks {quality}",
    "{opener} let's vote on {topic} {when}",
    "we lost the connection to {place} {number} times this week",
    "{person} lives in {place} and works on {project}",
    "are there any other questions about {topic}",
    "i spoke to {person} about {topic} and the {document}",
    "{number} people from {team} want to join {project}",
    "it was {person} who said the {thing} was {quality}",
)
_SLOT = re.compile(r"\{(\w+)\}")


class Grammar:
    """Draws sentences; the same seed gives the same ones."""

    def __init__(self, seed: int, open_names: bool) -> None:
        """Start drawing; without ``open_names`` only the names that labelled speech may hold are used."""
        self._random = random.Random(seed)
        names = {kind: KNOWN_NAMES[kind] + (OPEN_NAMES[kind] if open_names else []) for kind in KNOWN_NAMES}
        self._fill: Mapping[str, Sequence[str]] = {**SLOTS, **names}

    def sentences(self, taken: Collection[str] = ()) -> Iterator[str]:
        """Yield sentences, none twice and none in ``taken``; all frames take their turns."""
        seen = set(taken)
        while True:
            for frame in self._random.sample(FRAMES, len(FRAMES)):
                sentence = self._filled(frame)
                if sentence not in seen and 5 <= len(sentence.split()) <= 13:
                    seen.add(sentence)
                    yield sentence

    def _filled(self, frame: str) -> str:
        """Fill the slots of ``frame``, names without repeating one."""
        used: set[str] = set()

        def fill(match: re.Match[str]) -> str:
            word = self._random.choice([w for w in self._fill[match.group(1)] if w not in used])
            used.add(word)
            return _SLOT.sub(fill, word)

        return _SLOT.sub(fill, frame)


def names(open_only: bool = False) -> frozenset[str]:
    """Return every name of a person, place or project, or only those that labelled transcripts never hold."""
    tables = (OPEN_NAMES,) if open_only else (KNOWN_NAMES, OPEN_NAMES)
    return frozenset(name for table in tables for group in table.values() for name in group)
