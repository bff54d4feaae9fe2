"""What happens in a session, said once; every wire protocol renders these events in its own words."""

from dataclasses import dataclass

from raysr.decode.events import Cause
from raysr.decode.words import Word


@dataclass(frozen=True, slots=True)
class Partial:
    """The text of a segment that is still open.

    Attributes:
        session: id of the session.
        segment: number of the segment within the session, from 0.
        model: version of the model that recognises this segment.
        start, end: the span of audio the text covers so far, in seconds of the session's audio.
        stable: the prefix that later audio will not change.
        volatile: the tail that later audio may still change; ``stable + volatile`` is the text.
        since: the second of the session's audio from which on this model has heard it; what it makes of a segment
            depends on the audio from there to the segment's end alone.
        words: with times in seconds of the session's audio; their confidences are not calibrated.
    """

    session: str
    segment: int
    model: str
    start: float
    end: float
    stable: str
    volatile: str
    since: float = 0.0
    words: tuple[Word, ...] = ()

    @property
    def text(self) -> str:
        return self.stable + self.volatile


@dataclass(frozen=True, slots=True)
class Final:
    """The text of a closed segment: it will not change any more.

    Attributes:
        text: empty only when the client asked for a final and nothing was said.
        words: with times in seconds of the session's audio.
        confidence: mean confidence of the words, 0 when there are none.
        cause: why the segment was closed: ``endpoint`` (the speaker paused, or the segment grew to its limit),
            ``finalize`` (the client asked for it) or ``stop`` (the audio ended).
        The others are those of :class:`Partial`.
    """

    session: str
    segment: int
    model: str
    start: float
    end: float
    text: str
    words: tuple[Word, ...]
    confidence: float
    cause: Cause
    since: float = 0.0


Event = Partial | Final


def transcript(events: list[Event]) -> str:
    """Return the text of all finals, apart by one space."""
    return " ".join(event.text for event in events if isinstance(event, Final) and event.text)


class GrowingText:
    """The transcript as it grows, for clients that take nothing back: what later audio will not change."""

    def __init__(self) -> None:
        self._segment = ""
        self._before = False

    @property
    def any(self) -> bool:
        """Whether there is any text yet."""
        return self._before or bool(self._segment)

    def push(self, event: Event) -> str:
        """Return what an event adds; all that was ever returned, joined, is the :func:`transcript` of the finals."""
        known = event.text if isinstance(event, Final) else event.stable
        added = known[len(self._segment) :]
        if added and not self._segment and self._before:
            added = " " + added
        self._segment = known
        if isinstance(event, Final):
            self._before |= bool(event.text)
            self._segment = ""
        return added
