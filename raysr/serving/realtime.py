"""OpenAI's Realtime transcription sessions, ``WS /v1/realtime?intent=transcription``: base64 audio in, text that grows.

Written from the public API reference and checked with the ``openai`` SDK. A segment is an item. Deltas take nothing
back: they carry what later audio will not change, and ``completed`` has the whole. With ``turn_detection`` off, an item
is what lies between two commits.
"""

import base64
import binascii
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from fastapi import APIRouter, WebSocket
from pydantic import ValidationError

from raysr.serving.live import Step
from raysr.serving.live_socket import Asked, LiveSocket, Message, Refusal, json_object
from raysr.serving.realtime_settings import ENCODINGS, Session, Wrong, from_beta, merged, to_beta
from raysr.stream.events import Event, Final, GrowingText, transcript
from raysr.stream.pcm import PcmReader

router = APIRouter()


class _Item:
    """What is heard between two ends: of segments, or of what the client commits."""

    def __init__(self, previous: str | None = None) -> None:
        self.id, self.previous = f"item_{uuid.uuid4().hex[:24]}", previous
        self.growing, self.events = GrowingText(), list[Event]()
        self.speaks = False


class Realtime:
    """OpenAI's Realtime dialect of one transcription session.

    Args:
        language: that the endpoint is set up for, if it says so.
        beta: whether the client speaks as before the general availability of 2025.
    """

    name = "realtime"
    keeps_alive = False
    eager = False

    def __init__(self, language: str | None = None, beta: bool = False) -> None:
        self.id = f"sess_{uuid.uuid4().hex}"
        self._language = language
        self._family = "transcription_session" if beta else "session"
        self._session = Session()
        self._reader: PcmReader | None = None
        self._item, self._ended = _Item(), 0.0
        self._asked_ends: deque[Literal["commit", "clear"]] = deque()

    @property
    def opening(self) -> tuple[int, Sequence[str]] | None:
        """The first audio, or the first commit, ends what may be set of it."""
        return None if self._reader is None else self._session.opening

    def hello(self, model: str) -> list[Message]:
        """Tell the session's settings."""
        return [self._settings("created")]

    def read(self, message: bytes | str) -> Iterator[Asked]:
        """Read a client's event; one that cannot be done is answered with an error, and the session goes on."""
        event = json_object(message, "a message should be a JSON object with a 'type'; audio comes in base64")
        try:
            yield from self._do(event)
        except Wrong as wrong:
            yield _error(str(wrong), wrong.code, event_id=event.get("event_id"), param=wrong.param)

    def render(self, step: Step) -> Iterator[Message]:
        """Return what a step adds to the open item, and what its end is worth."""
        for event in step.events:
            item = self._item
            if self._session.by_turns and event.text and not item.speaks:
                item.speaks = True
                start = round(1000 * event.start)
                yield _event("input_audio_buffer.speech_started", item_id=item.id, audio_start_ms=start)
            if added := item.growing.push(event):
                yield _transcription("delta", item, delta=added)
            item.events.append(event)
            if isinstance(event, Final):
                yield from self._final(event)

    def goodbye(self, received: float) -> list[Message]:
        """Say nothing: it is the client who leaves."""
        return []

    def refused(self, refusal: Refusal) -> list[Message]:
        """Return an error; the socket is closed after it."""
        kind = "server_error" if refusal.code in (1011, 1012, 1013) else "invalid_request_error"
        return [_error(str(refusal), refusal.reason, kind)]

    def _do(self, event: dict[str, Any]) -> Iterator[Asked]:
        match event.get("type"):
            case "session.update" | "transcription_session.update":
                given = event.get("session")
                self._update(given if event["type"] == "session.update" else from_beta(given))
                yield self._settings("updated")
            case "input_audio_buffer.append":
                samples = self._open().push(_decoded(event.get("audio")))
                if len(samples):
                    yield samples
            case "input_audio_buffer.commit" | "input_audio_buffer.clear":
                self._open()
                self._asked_ends.append("clear" if event["type"].endswith("clear") else "commit")
                yield "finalize"
            case other:
                raise Wrong(f"events of type {str(other)[:60]!r} are not understood", "unknown_event", "type")

    def _open(self) -> PcmReader:
        if self._reader is None:
            self._reader = PcmReader(ENCODINGS[self._session.audio.input.format.type])
        return self._reader

    def _update(self, given: Any) -> None:
        """Merge settings into those that hold."""
        try:
            session = Session.model_validate(merged(self._session.model_dump(), given))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, ("session", *first["loc"])))
            raise Wrong(f"{where}: {first['msg']}", "invalid_value", where) from None
        if self._reader is not None and session.opening != self._session.opening:
            where = "session.audio.input"
            raise Wrong(f"{where}: format and keywords should come before the audio", "too_late", where)
        spoken = session.language
        if self._language and spoken and spoken.lower() != self._language:
            where = "session.audio.input.transcription.language"
            raise Wrong(f"this endpoint hears {self._language}, not {spoken[:20]!r}", "invalid_value", where)
        self._session = session

    def _final(self, final: Final) -> Iterator[Message]:
        """End the open item where a final ends it."""
        match final.cause:
            case "finalize":
                if self._asked_ends.popleft() == "clear":
                    self._begin(final.end, self._item.previous)
                    yield _event("input_audio_buffer.cleared")
                else:
                    yield from self._complete(final.end)
            case "endpoint" if self._session.by_turns:
                yield from self._complete(final.end)
            case "stop" if self._item.growing.any:
                yield from self._complete(final.end)

    def _complete(self, end: float) -> Iterator[Message]:
        item = self._item
        if item.speaks:
            yield _event("input_audio_buffer.speech_stopped", item_id=item.id, audio_end_ms=round(1000 * end))
        yield _event("input_audio_buffer.committed", item_id=item.id, previous_item_id=item.previous)
        content = {
            "id": item.id,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        for what in ("added", "done"):
            yield _event(f"conversation.item.{what}", previous_item_id=item.previous, item=content)
        yield _transcription(
            "completed",
            item,
            transcript=transcript(item.events),
            usage={"type": "duration", "seconds": round(end - self._ended, 3)},
            model=item.events[-1].model,
        )
        self._begin(end, item.id)

    def _begin(self, end: float, previous: str | None) -> None:
        self._item, self._ended = _Item(previous), end

    def _settings(self, what: Literal["created", "updated"]) -> Message:
        settings = self._session.model_dump(mode="json")
        if self._family != "session":
            settings = to_beta(self._session)
        return _event(f"{self._family}.{what}", session={**settings, "id": self.id})


def _event(type: str, **content: Any) -> Message:
    return {"type": type, "event_id": f"event_{uuid.uuid4().hex[:20]}", **content}


def _transcription(what: str, item: _Item, **content: Any) -> Message:
    kind = f"conversation.item.input_audio_transcription.{what}"
    return _event(kind, item_id=item.id, content_index=0, **content)


def _error(
    told: str,
    code: str,
    kind: str = "invalid_request_error",
    event_id: Any = None,
    param: str | None = None,
) -> Message:
    known = event_id if isinstance(event_id, str) else None
    return _event(
        "error", error={"type": kind, "code": code, "message": told, "param": param, "event_id": known}
    )


def _decoded(audio: Any) -> bytes:
    try:
        return base64.b64decode(audio, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise Wrong("audio should be base64", "invalid_value", "audio") from None


@router.websocket("/v1/realtime")
async def listen(socket: WebSocket) -> None:
    """Serve one session."""
    await socket.accept("realtime" if "realtime" in (socket.scope.get("subprotocols") or []) else None)
    beta = socket.headers.get("openai-beta") == "realtime=v1"
    dialect = Realtime(socket.app.state.server.config.language, beta)
    await LiveSocket(socket, dialect).serve()
