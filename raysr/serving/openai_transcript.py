"""A transcript in the forms of OpenAI's file transcription. Pure, no sockets.

Written from the public API reference and checked with the ``openai`` SDK. Words carry one key more than OpenAI's, their
``confidence``.
"""

import math
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, get_args

from raysr.serving.captions import srt, vtt
from raysr.stream.events import Event, Final, transcript

Form = Literal["json", "text", "srt", "vtt", "verbose_json"]
FORMS: tuple[str, ...] = get_args(Form)
Granularity = Literal["word", "segment"]
GRANULARITIES: tuple[str, ...] = get_args(Granularity)


@dataclass(frozen=True)
class Transcript:
    """What a file says.

    Attributes:
        events: of the session that heard it.
        seconds: of audio.
        model: version that made the last of it.
        language: that the endpoint is set up for.
    """

    events: list[Event]
    seconds: float
    model: str
    language: str

    @property
    def finals(self) -> list[Final]:
        """The segments in which something was said."""
        return [event for event in self.events if isinstance(event, Final) and event.text]

    @property
    def usage(self) -> dict[str, Any]:
        """What OpenAI would ask money for."""
        return {"type": "duration", "seconds": round(self.seconds, 3)}

    def render(self, form: Form, granularities: Collection[str] = ()) -> dict[str, Any] | str:
        """Return the body of an answer: JSON's content, or a text."""
        match form:
            case "text":
                return transcript(self.events) + "\n"
            case "srt":
                return srt(self.finals)
            case "vtt":
                return vtt(self.finals)
            case "verbose_json":
                return self._verbose(granularities)
        return {"text": transcript(self.events), "usage": self.usage, "model": self.model}

    def _verbose(self, granularities: Collection[str]) -> dict[str, Any]:
        found = {
            "task": "transcribe",
            "language": self.language,
            "duration": round(self.seconds, 3),
            "text": transcript(self.events),
            "usage": self.usage,
            "model": self.model,
        }
        if "word" in granularities:
            found["words"] = [
                {
                    "word": word.text,
                    "start": round(word.start, 3),
                    "end": round(word.end, 3),
                    "confidence": round(word.confidence, 4),
                }
                for final in self.finals
                for word in final.words
            ]
        if "segment" in granularities or not granularities:
            found["segments"] = [_segment(number, final) for number, final in enumerate(self.finals)]
        return found


def _segment(number: int, final: Final) -> dict[str, Any]:
    """Return a segment with all keys that OpenAI's has, since typed clients want them.

    There are no tokens of Whisper's, and who hears nothing writes no segment; so ``tokens`` is empty and
    ``no_speech_prob`` nothing.
    """
    said = final.text.encode()
    return {
        "id": number,
        "seek": round(100 * final.start),
        "start": round(final.start, 3),
        "end": round(final.end, 3),
        "text": final.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(math.log(max(final.confidence, 1e-10)), 4),
        "compression_ratio": round(len(said) / len(zlib.compress(said)), 4),
        "no_speech_prob": 0.0,
        "confidence": round(final.confidence, 4),
    }
