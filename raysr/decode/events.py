"""What a stream's decoder says: the text of a segment while it is open, and once it is closed."""

from dataclasses import dataclass
from typing import Literal

from raysr.decode.hypothesis import Hypothesis
from raysr.decode.words import Word

Cause = Literal["endpoint", "finalize", "stop"]


@dataclass(frozen=True, slots=True)
class Partial:
    """The text of a segment that is still open.

    Attributes:
        segment: its number, from 0; only segments with a final are counted.
        start, end: the span it covers so far, in seconds from the first frame pushed.
        stable: the prefix that later frames will not change.
        volatile: what they may still change; the text is ``stable + volatile``.
        words: of the text, as those of a final, but that their confidences are the search's own, not calibrated.
    """

    segment: int
    start: float
    end: float
    stable: str
    volatile: str
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Final:
    """The text of a closed segment.

    Attributes:
        text: the words, apart by one space; never empty.
        words: with times in seconds from the first frame pushed.
        confidence: the mean of the words': with a calibration, the share of them expected to be right.
        cause: ``endpoint`` (a pause, or the longest length), ``finalize`` (asked for) or ``stop`` (the end).
        nbest: hypotheses with their score parts, best first; token times count from ``start``.
        The others are those of :class:`Partial`.
    """

    segment: int
    start: float
    end: float
    text: str
    words: tuple[Word, ...]
    confidence: float
    cause: Cause
    nbest: tuple[Hypothesis, ...]


Event = Partial | Final
