"""OpenAI's file transcription, ``POST /v1/audio/transcriptions``, and ``GET /v1/models``.

Written from the public API reference and checked with the ``openai`` SDK. Files go through the same session as live
audio, in bounded memory, so that a file and a stream of it give the same text.
"""

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from raysr.audio.decoding_process import decode_apart
from raysr.errors import AudioError, ConfigError, PoolError
from raysr.serving import openai_errors
from raysr.serving.access import Denied
from raysr.serving.admission import Full
from raysr.serving.keeping import Recording, private
from raysr.serving.logs import Account
from raysr.serving.openai_errors import Refused
from raysr.serving.openai_request import SCHEMA, TranscriptionRequest
from raysr.serving.openai_transcript import Transcript
from raysr.serving.state import ServerState
from raysr.serving.uploads import Stalled, TooLarge, read_form
from raysr.stream.events import Event, Final, GrowingText, transcript
from raysr.stream.session import Session

log = logging.getLogger(__name__)
router = APIRouter()

RATE = 16000
LEFT = 499  # of a client that has left; nobody reads it


@dataclass
class Upload:
    """A file that is being heard."""

    request: Request
    wanted: TranscriptionRequest
    state: ServerState
    session: Session
    kept: Recording
    account: Account

    async def events(self) -> AsyncGenerator[list[Event], None]:
        """Yield what each half second of the file brings, so that live streams keep their share.

        Raises:
            Refused: the file cannot be decoded or is too long, or the client has left.
        """
        engine, limit = self.state.engine, self.state.config.limits.upload_seconds
        try:
            async with aclosing(decode_apart(self.wanted.upload.file, self.wanted.name)) as blocks:
                async for block in blocks:
                    self.session.adopt(self.state.model().streaming)
                    await self.kept.heard(block)
                    yield await self._told(await engine.run(self.session.push_task(block)))
                    self.state.metrics.record("audio_seconds", len(block) / RATE)
                    if self.session.heard > limit:
                        message = f"the audio is longer than {limit:g} s; cut it up"
                        raise Refused(413, message, "file", "audio_too_long")
                    if await self.request.is_disconnected():
                        raise _left()
        except AudioError as error:
            raise Refused(400, str(error), "file", "invalid_audio") from None
        last = await self._told(await engine.run(self.session.finish_task()))
        self.account.outcome = "ended"
        yield last

    async def _told(self, events: list[Event]) -> list[Event]:
        await self.kept.said(events)
        self.account.finals += sum(isinstance(event, Final) for event in events)
        return events

    def transcript(self, events: list[Event]) -> Transcript:
        """Return the transcript of all events."""
        language = self.state.config.language or self.wanted.language or "und"
        return Transcript(events, self.session.heard, self.session.version, language)


async def _opened(request: Request) -> AsyncIterator[Upload]:
    """Yield the file of a request and a session for it; both end when the answer has been sent."""
    state: ServerState = request.app.state.server
    account = Account("file", str(uuid.uuid4()))
    try:
        account.client = _client(request)
        if state.draining.is_set():
            raise Refused(503, "the server restarts; try again in a moment", code="server_restarts")
        with state.uploads.enter(account.client):
            async with _form(request, state) as form:
                wanted = TranscriptionRequest.read(form, state.config.language)
                recording = state.keeper.recording(account.session, RATE, private(request))
                opening = state.session(RATE, account.session, wanted.phrases)
                async with opening as session, recording as kept:
                    try:
                        yield Upload(request, wanted, state, session, kept, account)
                    finally:
                        account.audio_seconds, account.model = session.heard, session.version
    except Refused as refused:
        account.outcome = _outcome(refused)
        raise
    except Full as full:
        status, code = (429, "rate_limit_exceeded") if full.own else (503, "server_busy")
        account.outcome = code
        raise Refused(status, f"{full}; try again in a moment", code=code) from None
    except ConfigError as error:
        account.outcome = "invalid_value"
        raise Refused(400, str(error), "phrases", account.outcome) from None
    except PoolError as error:
        account.outcome = "no_model"
        raise Refused(503, str(error), code=account.outcome) from None
    finally:
        account.write()


@asynccontextmanager
async def _form(request: Request, state: ServerState) -> AsyncIterator[FormData]:
    """Yield the form that a request is, for the block."""
    limits = state.config.limits
    try:
        form = await read_form(request, limits.upload_bytes, limits.upload_idle_seconds)
    except TooLarge as error:
        raise Refused(413, str(error), "file", "file_too_large") from None
    except Stalled as error:
        raise Refused(408, str(error), "file", "upload_stalled") from None
    except HTTPException as error:
        raise Refused(400, str(error.detail), code="invalid_form") from None
    except ClientDisconnect:
        raise _left() from None
    try:
        yield form
    finally:
        await form.close()


def _left() -> Refused:
    return Refused(LEFT, "the client has left")


def _outcome(refused: Refused) -> str:
    return "left" if refused.status == LEFT else refused.code or "refused"


@router.post(
    "/v1/audio/transcriptions",
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": SCHEMA}}}},
    responses=openai_errors.described(400, 401, 408, 413, 429, 503),
)
async def transcriptions(upload: Annotated[Upload, Depends(_opened)]) -> Response:
    """Transcribe an uploaded file of any format that FFmpeg reads."""
    wanted, parts = upload.wanted, upload.events()
    if wanted.stream:
        first = await anext(parts)  # what is no audio is told by the status
        return StreamingResponse(_told(upload, first, parts), media_type="text/event-stream")
    found = upload.transcript([event async for events in parts for event in events])
    body, headers = found.render(wanted.form, wanted.granularities), {"x-raysr-model": found.model}
    if isinstance(body, str):
        return PlainTextResponse(body, headers=headers)
    return JSONResponse(body, headers=headers)


async def _told(
    upload: Upload, first: list[Event], rest: AsyncGenerator[list[Event], None]
) -> AsyncIterator[str]:
    """Yield server-sent events: what becomes certain, and the whole in the end."""
    growing, found = GrowingText(), first
    try:
        for message in _deltas(growing, first):
            yield message
        async with aclosing(rest):
            async for events in rest:
                found += events
                for message in _deltas(growing, events):
                    yield message
        done = {"type": "transcript.text.done", "text": transcript(found), "model": upload.session.version}
        yield _event(done)
        yield "data: [DONE]\n\n"
    except Refused as refused:
        upload.account.outcome = _outcome(refused)
        if refused.status != LEFT:
            upload.state.metrics.record("refused", reason=upload.account.outcome)
        yield _event(refused.body)
    except (asyncio.CancelledError, GeneratorExit):
        upload.account.outcome = "left"
        raise
    except Exception:
        log.exception("a transcription failed")
        upload.state.metrics.record("refused", reason="internal_error")
        yield _event(Refused(500, "the server failed; its log says why", code="internal_error").body)


def _deltas(growing: GrowingText, events: list[Event]) -> Iterator[str]:
    for event in events:
        if added := growing.push(event):
            yield _event({"type": "transcript.text.delta", "delta": added})


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def _client(request: Request) -> str:
    """Return the name of the client's key."""
    state: ServerState = request.app.state.server
    try:
        return state.access.client(request)
    except Denied as denied:
        raise Refused(401, str(denied), code="invalid_api_key") from None


@router.get("/v1/models", dependencies=[Depends(_client)], responses=openai_errors.described(401))
async def models(request: Request) -> dict[str, Any]:
    """List the one model that is being served."""
    return {"object": "list", "data": [_model(request)] if request.app.state.server.watcher.current else []}


@router.get(
    "/v1/models/{name}", dependencies=[Depends(_client)], responses=openai_errors.described(401, 404, 503)
)
async def model(request: Request, name: str) -> dict[str, Any]:
    """Describe the model that is being served, by its name."""
    current = request.app.state.server.watcher.current
    if current is None or current.version != name:
        raise Refused(404, f"the model {name[:100]!r} is not being served", "model", "model_not_found")
    return _model(request)


def _model(request: Request) -> dict[str, Any]:
    served = request.app.state.server.model()
    return {"id": served.version, "object": "model", "created": int(served.since), "owned_by": "raysr"}
