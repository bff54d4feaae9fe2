"""How late a live stream's words are: from the arrival of their audio to the message that has them. Pure.

Definitions: *first partial*: from the onset of a segment's first word to the first text of that segment. *Emission*:
from the end of a word to the first text that has it, and all words before it, for good (user-perceived latency).
*Final*: from the end of a segment's last word to its final where a pause ended it, and from the request where one was
asked for.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from raysr.stream.events import Event, Final

KEPT_S = 60.0
"""Of audio whose arrival is known; longer than any segment."""
_ROUNDING = 1e-6


class Late(NamedTuple):
    """Seconds, and what they are of; ``cause`` is that of a final."""

    what: Literal["first_partial", "emission", "final"]
    seconds: float
    cause: str = ""


class Latency:
    """Follows one stream; times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._ends: list[float] = []  # seconds of audio that had arrived …
        self._times: list[float] = []  # … and when
        self._asked: float | None = None
        self._texts: list[tuple[float, list[str]]] = []  # of the open segment: when, and its words

    def arrived(self, received: float, now: float) -> None:
        """Note that so many seconds of audio have arrived in all."""
        self._ends.append(received)
        self._times.append(now)

    def age(self, recognised: float, now: float) -> float:
        """Return how long ago the oldest audio beyond a second of the stream has arrived; 0 where there is none."""
        place = bisect_right(self._ends, recognised + _ROUNDING)
        return now - self._times[place] if place < len(self._ends) else 0.0

    def asked(self, now: float) -> None:
        """Note that the client asks for a final."""
        self._asked = now

    def seen(self, events: Iterable[Event], now: float) -> Iterator[Late]:
        """Note that events are told, and yield how late they were; text is measured when its segment is final."""
        for event in events:
            words = event.text.split()
            if words:
                self._texts.append((now, words))
            if isinstance(event, Final):
                yield from self._final(event, now)
                self._texts = []
        self._forget()

    def _final(self, final: Final, now: float) -> Iterator[Late]:
        if final.words:
            yield Late("first_partial", self._texts[0][0] - self._arrival(final.words[0].start))
            said = [word.text for word in final.words]
            for number, word in enumerate(final.words, 1):
                yield Late("emission", self._first(said[:number]) - self._arrival(word.end))
        if final.cause == "endpoint" and final.words:
            yield Late("final", now - self._arrival(final.words[-1].end), final.cause)
        elif self._asked is not None and final.cause != "endpoint":
            yield Late("final", now - self._asked, final.cause)
            self._asked = None

    def _first(self, said: list[str]) -> float:
        """Return when a text first began with words that all texts after it have too."""
        first = self._texts[-1][0]
        for time, words in reversed(self._texts):
            if words[: len(said)] != said:
                break
            first = time
        return first

    def _arrival(self, seconds: float) -> float:
        """Return when the audio at a second of the stream arrived."""
        place = bisect_left(self._ends, seconds)
        return self._times[min(place, len(self._times) - 1)]

    def _forget(self) -> None:
        first = bisect_left(self._ends, self._ends[-1] - KEPT_S) if self._ends else 0
        del self._ends[:first], self._times[:first]
