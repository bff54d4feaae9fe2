"""A session: one client's audio in, events out, whatever the audio's rate and however it is cut."""

from collections.abc import Mapping

import numpy as np

from raysr.audio.resample import Resampler
from raysr.decode import events as decoded
from raysr.decode.segments import boostable
from raysr.decode.words import Word
from raysr.model.chunking import CHUNKING, Chunking
from raysr.pool import Recogniser
from raysr.stream.events import Event, Final, Partial
from raysr.stream.passage import Passage

SLICE_SECONDS = 0.5
REWIND_SECONDS = 1.0


class Session:
    """Resampling, features, streaming encoder and segment decoder of one stream; no sockets, no threads, no Ray.

    The finals depend on the samples alone, not on how they are cut into pushes, and equal those of
    ``raysr.decode.recognise.recognise_masked`` on the whole audio.

    Args:
        recogniser: a loaded pool entry; :meth:`adopt` brings a newer one in while the session runs.
        rate: of the samples pushed, in Hz.
        version, session_id: names that the events carry.
        chunking: encoder frames recognised at a time, and what they see beside themselves.
        phrases: those expected, and their boosts. ConfigError for one that cannot be boosted; a newer model does
            without those that it cannot.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        *,
        rate: int = 16000,
        version: str = "",
        session_id: str = "",
        chunking: Chunking = CHUNKING,
        phrases: Mapping[str, float] | None = None,
    ) -> None:
        self.id = session_id
        self.version = version
        self._recogniser = recogniser
        self._chunking = chunking
        self._phrases = dict(phrases or {})
        self._source_rate = rate
        self._rate = recogniser.config.fbank.sample_rate
        self._resampler = Resampler(rate, self._rate)
        self._recent = np.zeros(0, np.float32)
        self._newer: tuple[Recogniser, str] | None = None
        self._pushed = 0
        self._segment = 0
        self._begin(0)

    @property
    def heard(self) -> float:
        """Seconds of audio pushed so far."""
        return self._pushed / self._source_rate

    def adopt(self, recogniser: Recogniser, version: str) -> None:
        """Take a newer model: from the next samples on while nobody speaks, otherwise when the open segment ends."""
        self._newer = (recogniser, version) if version != self.version else None

    def push(self, samples: np.ndarray) -> list[Event]:
        """Hear samples (N,) float32 at the session's rate; return what they bring."""
        self._pushed += len(samples)
        return self._hear(self._resampler.push(samples))

    def finalize(self) -> list[Event]:
        """Close the open segment because the client asks for it; the last event is always a final."""
        return self._close(self._passage.finalize(), "finalize")

    def finish(self) -> list[Event]:
        """Close the last segment: the audio ended. The last event is always a final."""
        return self._hear(self._resampler.flush()) + self._close(self._passage.finish(), "stop")

    def _hear(self, samples: np.ndarray) -> list[Event]:
        """Hear samples (N,) at the model's rate, in slices, so that a newer model need not wait for a long push."""
        events: list[Event] = []
        step = round(SLICE_SECONDS * self._rate)
        for first in range(0, len(samples), step):
            if self._newer is not None and not self._speaking:
                decoded_to = self._offset + self._passage.decoded
                events += self._change(max(self._boundary, decoded_to - round(REWIND_SECONDS * self._rate)))
            piece = samples[first : first + step]
            self._recent = np.concatenate([self._recent, piece])
            events += self._read(self._passage.push(piece))
            self._forget()
        return events

    def _read(self, found: list[decoded.Event]) -> list[Event]:
        """Name and number the decoder's events; change the model where a segment ends."""
        events: list[Event] = []
        for event in found:
            named = self._named(event)
            events.append(named)
            self._speaking = isinstance(named, Partial)
            if isinstance(named, Final):
                self._segment += 1
                self._boundary = round(named.end * self._rate)
                if self._newer is not None:
                    # What the older model already read of the next segment is dropped: the newer one reads it again.
                    return events + self._change(self._boundary)
        return events

    def _close(self, found: list[decoded.Event], cause: decoded.Cause) -> list[Event]:
        """End the passage and begin the next one after it; see to it that a final comes last."""
        newer, self._newer = self._newer, None
        events = self._read(found)
        if not events or not isinstance(events[-1], Final) or events[-1].cause != cause:
            start = self._boundary / self._rate
            end = max(start, self._heard_samples / self._rate)
            events.append(Final(self.id, self._segment, self.version, start, end, "", (), 0.0, cause))
            self._segment += 1
        if newer is not None:
            self._take(*newer)
        self._begin(self._heard_samples)
        return events

    def _change(self, first: int) -> list[Event]:
        """Begin a passage of the newer model at sample ``first``, which is still in memory."""
        assert self._newer is not None
        newer, self._newer = self._newer, None
        self._take(*newer)
        again = self._recent[max(0, first - self._recent_start) :]
        self._begin(max(first, self._recent_start))
        return self._hear(again)

    def _take(self, recogniser: Recogniser, version: str) -> None:
        """Go on with another model."""
        self._recogniser, self.version = recogniser, version
        self._phrases = boostable(self._phrases, recogniser.tokeniser, recogniser.config.decode)

    def _begin(self, first: int) -> None:
        """Open a passage whose first sample is number ``first`` of the session."""
        self._passage = Passage(self._recogniser, self._chunking, self._phrases)
        self._offset = self._boundary = self._recent_start = first
        self._recent = np.zeros(0, np.float32)
        self._speaking = False

    def _forget(self) -> None:
        """Drop the samples that no change of model can ask for any more."""
        oldest = self._offset + self._passage.decoded - round(REWIND_SECONDS * self._rate)
        excess = oldest - self._recent_start
        if excess > 0:
            self._recent = self._recent[excess:].copy()
            self._recent_start += excess

    @property
    def _heard_samples(self) -> int:
        return self._recent_start + len(self._recent)

    def _named(self, event: decoded.Event) -> Event:
        start, end = self._absolute(event.start), self._absolute(event.end)
        if isinstance(event, decoded.Partial):
            return Partial(self.id, self._segment, self.version, start, end, event.stable, event.volatile)
        words = tuple(self._moved(word) for word in event.words)
        return Final(
            self.id, self._segment, self.version, start, end, event.text, words, event.confidence, event.cause
        )

    def _moved(self, word: Word) -> Word:
        return Word(word.text, self._absolute(word.start), self._absolute(word.end), word.confidence)

    def _absolute(self, seconds: float) -> float:
        return self._offset / self._rate + seconds
