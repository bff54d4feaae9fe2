"""A session: one client's audio in, events out, whatever the audio's rate and however it is cut."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from raysr.audio.resample import Resampler
from raysr.decode import events as decoded
from raysr.decode.segments import boostable
from raysr.decode.words import Word
from raysr.stream.events import Event, Final, Partial
from raysr.stream.passage import Passage
from raysr.stream.streaming_model import StreamingModel
from raysr.stream.together import Task, alone

SLICE_SECONDS = 0.5
REWIND_SECONDS = 1.0


class Session:
    """Resampling, features, streaming encoder and segment decoder of one stream; no sockets, no threads, no Ray.

    The finals depend on the samples alone, not on how they are cut into pushes, and equal those of
    ``raysr.decode.recognise.recognise_masked`` on the whole audio: but for how sums are rounded in batches of other
    sizes. :meth:`push` and the like carry out at once what their tasks do together with those of other sessions: see
    :mod:`raysr.stream.together`. A session is asked for one thing at a time.

    Args:
        model: to hear with; :meth:`adopt` brings a newer one in while the session runs. RuntimeError where it has no
            slot left.
        rate: of the samples pushed, in Hz.
        session_id: that the events carry.
        phrases: those expected, and their boosts. ConfigError for one that cannot be boosted; a newer model does
            without those that it cannot.
    """

    def __init__(
        self,
        model: StreamingModel,
        *,
        rate: int = 16000,
        session_id: str = "",
        phrases: Mapping[str, float] | None = None,
    ) -> None:
        self.id = session_id
        self._model = model
        self._version = model.version
        self._phrases = dict(phrases or {})
        self._source_rate = rate
        self._rate = model.recogniser.config.fbank.sample_rate
        self._resampler = Resampler(rate, self._rate)
        self._recent = np.zeros(0, np.float32)
        self._newer: StreamingModel | None = None
        self._pushed = 0
        self._segment = 0
        self._begin(0)

    @property
    def version(self) -> str:
        """The version of the model that hears now, or heard last."""
        return self._version

    @property
    def heard(self) -> float:
        """Seconds of audio pushed so far."""
        return self._pushed / self._source_rate

    @property
    def due(self) -> float:
        """Seconds of audio that a push has to hold for more of it to be recognised."""
        return self._passage.missing / self._rate

    def adopt(self, model: StreamingModel) -> None:
        """Take a newer model: from the next samples on while nobody speaks, otherwise when the open segment ends."""
        self._newer = model if model is not self._model else None

    def push(self, samples: np.ndarray) -> list[Event]:
        """Hear samples (N,) float32 at the session's rate; return what they bring."""
        return alone(self.push_task(samples))

    def finalize(self) -> list[Event]:
        """Close the open segment because the client asks for it; the last event is always a final."""
        return alone(self.finalize_task())

    def finish(self) -> list[Event]:
        """Close the last segment: the audio ended. The last event is always a final."""
        return alone(self.finish_task())

    def push_task(self, samples: np.ndarray) -> Task:
        """Do what :meth:`push` does."""
        self._pushed += len(samples)
        return (yield from self._hear(self._resampler.push(samples)))

    def finalize_task(self) -> Task:
        """Do what :meth:`finalize` does."""
        return (yield from self._close("finalize"))

    def finish_task(self) -> Task:
        """Do what :meth:`finish` does."""
        events = yield from self._hear(self._resampler.flush())
        return events + (yield from self._close("stop"))

    def refresh(self) -> list[Event]:
        """Take the newer model now, if there is one: what is open ends as if the speaker had paused."""
        return alone(self.refresh_task())

    def leave(self) -> None:
        """Give the place in the model's batch back; nothing else may follow."""
        alone(self.leave_task())

    def refresh_task(self) -> Task:
        """Do what :meth:`refresh` does."""
        if self._newer is None:
            return []
        events: list[Event] = []
        if self._speaking:
            found = yield from self._passage.finalize()
            paused = [replace(e, cause="endpoint") if isinstance(e, decoded.Final) else e for e in found]
            events += yield from self._read(paused)
        if self._newer is not None:  # no final has brought it in
            events += yield from self._change(self._newer, self._rewound)
        return events

    def leave_task(self) -> Task:
        """Do what :meth:`leave` does."""
        self._passage.leave()
        # whoever holds on to the session, such as the traceback of an error, holds on to no model
        del self._passage, self._model, self._newer
        yield from ()
        return []

    def _hear(self, samples: np.ndarray) -> Task:
        """Hear samples (N,) at the model's rate, in slices, so that a newer model need not wait for a long push."""
        events: list[Event] = []
        step = round(SLICE_SECONDS * self._rate)
        for first in range(0, len(samples), step):
            if self._newer is not None and not self._speaking:
                events += yield from self._change(self._newer, self._rewound)
            piece = samples[first : first + step]
            self._recent = np.concatenate([self._recent, piece])
            found = yield from self._passage.push(piece)
            events += yield from self._read(found)
            self._forget()
        return events

    def _read(self, found: list[decoded.Event]) -> Task:
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
                    return events + (yield from self._change(self._newer, self._boundary))
        return events

    def _close(self, cause: Literal["finalize", "stop"]) -> Task:
        """End the passage and begin the next one after it; see to it that a final comes last."""
        passage = self._passage
        found = yield from passage.finalize() if cause == "finalize" else passage.finish()
        newer, self._newer = self._newer, None
        events = yield from self._read(found)
        if not events or not isinstance(events[-1], Final) or events[-1].cause != cause:
            start = self._boundary / self._rate
            end = max(start, self._heard_samples / self._rate)
            final = Final(self.id, self._segment, self.version, start, end, "", (), 0.0, cause, self._since)
            events.append(final)
            self._segment += 1
        self._passage.leave()
        if newer is not None:
            self._take(newer)
        self._begin(self._heard_samples)
        return events

    def _change(self, newer: StreamingModel, first: int) -> Task:
        """Begin a passage of a newer model at sample ``first``, which is still in memory."""
        self._newer = None
        self._passage.leave()
        self._take(newer)
        again = self._recent[max(0, first - self._recent_start) :]
        self._begin(max(first, self._recent_start))
        return (yield from self._hear(again))

    def _take(self, model: StreamingModel) -> None:
        """Go on with another model."""
        self._model, self._version = model, model.version
        recogniser = model.recogniser
        self._phrases = boostable(self._phrases, recogniser.tokeniser, recogniser.config.decode)

    def _begin(self, first: int) -> None:
        """Open a passage whose first sample is number ``first`` of the session."""
        self._passage = Passage(self._model, self._phrases)
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
    def _rewound(self) -> int:
        """The sample that a newer model begins at while nobody speaks: what comes may have begun."""
        decoded_to = self._offset + self._passage.decoded
        return max(self._boundary, decoded_to - round(REWIND_SECONDS * self._rate))

    @property
    def _since(self) -> float:
        return self._offset / self._rate

    @property
    def _heard_samples(self) -> int:
        return self._recent_start + len(self._recent)

    def _named(self, event: decoded.Event) -> Event:
        span = self._absolute(event.start), self._absolute(event.end)
        words = tuple(self._moved(word) for word in event.words)
        numbered = self.id, self._segment, self.version, *span
        if isinstance(event, decoded.Partial):
            return Partial(*numbered, event.stable, event.volatile, self._since, words)
        return Final(*numbered, event.text, words, event.confidence, event.cause, self._since)

    def _moved(self, word: Word) -> Word:
        return Word(word.text, self._absolute(word.start), self._absolute(word.end), word.confidence)

    def _absolute(self, seconds: float) -> float:
        return self._offset / self._rate + seconds
