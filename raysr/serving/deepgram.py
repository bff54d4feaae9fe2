"""The live streaming protocol of Deepgram, ``WS /v1/listen``: audio in, interim and final results out.

Written from Deepgram's public API reference and checked with its own client, ``deepgram-sdk``.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from fastapi import APIRouter, WebSocket

from raysr.audio.files import SAMPLE_RATE
from raysr.decode.words import utterance_confidence
from raysr.errors import ConfigError, RaysrError
from raysr.serving.live import Step
from raysr.serving.live_socket import Asked, LiveSocket, Message, Reason, Refusal, json_object
from raysr.stream.events import Event, Final, Partial
from raysr.stream.pcm import PcmReader, check_rate

router = APIRouter()

CONTAINERS = {"opus", "ogg-opus", "flac"}
"""Encodings that only come in a container."""
VARIANTS: dict[Reason, str] = {
    "denied": "INVALID_AUTH",
    "full": "TOO_MANY_SESSIONS",
    "restart": "RESTARTS",
    "not_ready": "NOT_READY",
    "request": "INVALID_QUERY_PARAMETER",
    "audio": "DATA-0000",
    "message": "DATA-0000",
    "idle": "NET-0001",
    "too_big": "MESSAGE-TOO-LONG",
    "too_long": "SESSION-TOO-LONG",
    "too_fast": "TOO-FAST",
    "internal": "INTERNAL",
}


@dataclass(frozen=True, slots=True)
class ListenQuery:
    """The query parameters of ``/v1/listen`` that we act on; the others are accepted and change nothing.

    Without an ``encoding`` audio comes in a container, which says the rest itself.
    """

    encoding: str | None = None
    sample_rate: int = 16000
    channels: int = 1
    interim_results: bool = False
    utterance_end_ms: int | None = None
    vad_events: bool = False
    phrases: tuple[str, ...] = ()

    @classmethod
    def read(cls, query: Mapping[str, str], phrases: Iterable[str] = ()) -> "ListenQuery":
        """Read a query string, and the values of ``keyterm`` and ``keywords``, which may be there several times.

        Raises a RaysrError that names the parameter.
        """
        encoding = query.get("encoding")
        result = cls(
            encoding=None if encoding in CONTAINERS else encoding,
            sample_rate=check_rate(_integer(query, "sample_rate", 16000)),
            channels=_integer(query, "channels", 1),
            interim_results=_switch(query, "interim_results"),
            utterance_end_ms=_integer(query, "utterance_end_ms", 0) or None,
            vad_events=_switch(query, "vad_events"),
            phrases=tuple(phrases),
        )
        result.reader()
        return result

    def reader(self) -> PcmReader | None:
        """Return what reads raw audio; None where it comes in a container."""
        return PcmReader(self.encoding, self.channels) if self.encoding is not None else None


class Deepgram:
    """Deepgram's dialect of one stream; remembers only what its messages need.

    Results carry one key of ours, ``raysr``: the stable and the volatile part of the text, the lag in seconds, and the
    second ``since`` which the model has heard the stream.
    """

    name = "deepgram"
    keeps_alive = True
    eager = False

    def __init__(self, query: ListenQuery) -> None:
        self.id = str(uuid.uuid4())
        self._query, self._model = query, ""
        self._reader = query.reader()
        self._last = (-1, "")
        self._speaking = False
        self._open_utterance: float | None = None

    @property
    def opening(self) -> tuple[int, tuple[str, ...]]:
        """All is said in the query."""
        return self._query.sample_rate if self._reader else SAMPLE_RATE, self._query.phrases

    def hello(self, model: str) -> list[Message]:
        """Say nothing before there is something to say."""
        self._model = model
        return []

    def read(self, message: bytes | str) -> list[Asked]:
        """Read audio, or ``Finalize``, ``KeepAlive`` and ``CloseStream``."""
        if isinstance(message, bytes):
            if self._reader is None:
                return [message] if message else []
            samples = self._reader.push(message)
            return [samples] if len(samples) else []
        match _control(message):
            case "Finalize":
                return ["finalize"]
            case "CloseStream":
                return ["finish"]
            case "KeepAlive":
                return []
            case other:
                raise Refusal("message", f"a text message of type {other} is not understood")

    def render(self, step: Step) -> list[Message]:
        """Return the messages that ``step`` is worth, in order."""
        messages = [message for event in step.events for message in self._event(event, step)]
        return messages + self._utterance_end(step)

    def goodbye(self, received: float) -> list[Message]:
        """Return the metadata of the stream."""
        return [
            {
                "type": "Metadata",
                "transaction_key": "deprecated",
                "request_id": self.id,
                "sha256": "",
                "created": datetime.now(UTC).isoformat(),
                "duration": round(received, 3),
                "channels": 1,
                "models": [self._model],
            }
        ]

    def _event(self, event: Event, step: Step) -> list[Message]:
        self._model = event.model
        messages = []
        if event.text and not self._speaking:
            self._speaking = True
            if self._query.vad_events:
                messages.append(
                    {"type": "SpeechStarted", "channel": [0, 1], "timestamp": round(event.start, 3)}
                )
        if isinstance(event, Final):
            self._speaking = False
            if event.words:
                self._open_utterance = event.words[-1].end
            messages.append(self._final(event, step))
        elif event.text and self._query.interim_results and self._last != (event.segment, event.text):
            self._last = event.segment, event.text
            messages.append(self._interim(event, step))
        return messages

    def _final(self, event: Final, step: Step) -> Message:
        return self._results(event, step) | {
            "is_final": True,
            "speech_final": event.cause == "endpoint",
            "from_finalize": event.cause == "finalize",
            "raysr": _ours(event, event.text, "", step),
        }

    def _interim(self, event: Partial, step: Step) -> Message:
        return self._results(event, step) | {
            "is_final": False,
            "speech_final": False,
            "from_finalize": False,
            "raysr": _ours(event, event.stable, event.volatile, step),
        }

    def _results(self, event: Event, step: Step) -> Message:
        words = [
            {
                "word": word.text,
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                "confidence": round(word.confidence, 4),
                "punctuated_word": word.text,
            }
            for word in event.words
        ]
        confidence = round(utterance_confidence(event.words), 4)
        alternative = {"transcript": event.text, "confidence": confidence, "words": words}
        return {
            "type": "Results",
            "channel_index": [0, 1],
            "start": round(event.start, 3),
            "duration": round(max(0.0, event.end - event.start), 3),
            "channel": {"alternatives": [alternative]},
            "metadata": {
                "request_id": self.id,
                "model_info": {"name": event.model, "version": event.model, "arch": "raysr"},
                "model_uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, f"raysr:{event.model}")),
            },
        }

    def _utterance_end(self, step: Step) -> list[Message]:
        """Say that the speaker has been silent for ``utterance_end_ms`` since the last word that was final."""
        if self._query.utterance_end_ms is None or self._open_utterance is None or self._speaking:
            return []
        if step.heard < self._open_utterance + self._query.utterance_end_ms / 1000:
            return []
        message = {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": round(self._open_utterance, 3)}
        self._open_utterance = None
        return [message]

    def refused(self, refusal: Refusal) -> list[Message]:
        """Return Deepgram's in-band error."""
        return [error_message(VARIANTS[refusal.reason], str(refusal), self.id)]


def _ours(event: Event, stable: str, volatile: str, step: Step) -> Message:
    return {
        "stable": stable,
        "volatile": volatile,
        "lag": round(step.lag, 3),
        "since": round(event.since, 6),
    }


def error_message(variant: str, description: str, request_id: str = "") -> Message:
    """Return Deepgram's in-band error."""
    return {
        "type": "Error",
        "description": description,
        "message": description,
        "variant": variant,
        "request_id": request_id,
    }


def _integer(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ConfigError(f"{name} should be a whole number, not '{text[:20]}'")
    return int(text)


def _switch(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "false").lower()
    if text not in {"true", "false"}:
        raise ConfigError(f"{name} should be true or false, not '{text[:20]}'")
    return text == "true"


def _control(message: str) -> str:
    should = "a text message should be JSON with a 'type'"
    kind = json_object(message, should).get("type")
    if kind is None:
        raise Refusal("message", should)
    return kind if isinstance(kind, str) else repr(kind)[:40]


@router.websocket("/v1/listen")
async def listen(socket: WebSocket) -> None:
    """Serve one stream."""
    # browsers drop a socket whose server does not answer the sub-protocol that Deepgram's clients offer there
    await socket.accept("token" if "token" in (socket.scope.get("subprotocols") or []) else None)
    given = socket.query_params
    query, refusal = ListenQuery(), None
    try:
        query = ListenQuery.read(given, [*given.getlist("keyterm"), *given.getlist("keywords")])
    except RaysrError as error:
        refusal = Refusal("request", str(error))
    await LiveSocket(socket, Deepgram(query)).serve(refusal)
