"""OpenAI's file transcription, ``POST /v1/audio/transcriptions``, and ``GET /v1/models``.

Written from the public API reference and checked with the ``openai`` SDK. Files go through the same session as live
audio, in bounded memory, so that a file and a stream of it give the same text.
"""

import uuid
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from raysr.audio.files import decode_blocks
from raysr.errors import AudioError, ConfigError, PoolError
from raysr.serving.admission import Full
from raysr.serving.state import ServerState
from raysr.serving.uploads import TooLarge, read_form
from raysr.stream.events import Event, transcript
from raysr.stream.session import Session

router = APIRouter()

FORMATS = ("json", "text")
BLOCK = 16000


class Refused(Exception):
    """A request that is answered with an error in OpenAI's form."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


_FORM = {
    "type": "object",
    "required": ["file", "model"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "model": {"type": "string", "description": "any name: the endpoint serves one model at a time"},
        "response_format": {"type": "string", "enum": list(FORMATS)},
        "phrases": {
            "type": "array",
            "items": {"type": "string"},
            "description": "phrases to expect, each `text` or `text:boost`; an extension of ours",
        },
    },
}


@router.post(
    "/v1/audio/transcriptions",
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)
async def transcriptions(request: Request) -> Response:
    """Transcribe an uploaded file of any format that FFmpeg reads."""
    state: ServerState = request.app.state.server
    try:
        with state.uploads.enter():
            async with _form(request, state.config.limits.upload_bytes) as form:
                return await _transcribe(state, form)
    except Full as full:
        raise Refused(503, f"{full}; try again in a moment", code="server_busy") from None


class _form:
    """The parsed upload; its spooled files are removed at the end of the block."""

    def __init__(self, request: Request, limit: int) -> None:
        self._request, self._limit = request, limit

    async def __aenter__(self) -> FormData:
        try:
            self._parsed = await read_form(self._request, self._limit)
        except TooLarge as error:
            raise Refused(413, str(error), "file", "file_too_large") from None
        except HTTPException as error:
            raise Refused(400, str(error.detail)) from None
        return self._parsed

    async def __aexit__(self, *_: object) -> None:
        await self._parsed.close()


async def _transcribe(state: ServerState, form: FormData) -> Response:
    response_format = _check(form)
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        raise Refused(
            400, "the field 'file' is missing: attach an audio file", "file", "missing_required_parameter"
        )
    # Cut to what a log line or a message can hold: the name is the client's, and is never opened.
    blocks = _blocks(upload.file, (upload.filename or "upload")[:100])
    try:
        async with state.session(16000, str(uuid.uuid4()), _phrases(form)) as session:
            text = transcript(await _recognise(state, session, blocks))
    except ConfigError as error:
        raise Refused(400, str(error), "phrases", "invalid_value") from None
    except PoolError as error:
        raise Refused(503, str(error), code="no_model") from None
    headers = {"x-raysr-model": session.version}
    if response_format == "text":
        return PlainTextResponse(text + "\n", headers=headers)
    usage = {"type": "duration", "seconds": round(session.heard, 3)}
    return JSONResponse({"text": text, "usage": usage, "model": session.version}, headers=headers)


def _check(form: FormData) -> str:
    """Return the response format; refuse what would silently change nothing."""
    response_format = form.get("response_format", "json")
    if response_format not in FORMATS:
        raise Refused(
            400,
            f"response_format {str(response_format)[:40]!r} is not supported; supported: {', '.join(FORMATS)}",
            "response_format",
            "unsupported_value",
        )
    if str(form.get("stream", "false")).lower() not in {"false", "0"}:
        raise Refused(
            400, "stream=true is not supported; use the WebSocket /v1/listen", "stream", "unsupported_value"
        )
    return str(response_format)


def _phrases(form: FormData) -> list[str]:
    """Return the phrases of a form, whose lists SDKs name with brackets and people do not."""
    return [str(phrase) for key in ("phrases", "phrases[]") for phrase in form.getlist(key)]


async def _recognise(state: ServerState, session: Session, blocks: Iterator[np.ndarray]) -> list[Event]:
    """Decode and recognise block by block, a second of audio a turn, so that live streams keep their share."""
    events: list[Event] = []
    limit = state.config.limits.upload_seconds
    try:
        while (block := await state.workers.run(next, blocks, None)) is not None:
            events += await state.engine.run(session.push_task(block))
            if session.heard > limit:
                raise Refused(
                    413, f"the audio is longer than {limit:g} s; cut it up", "file", "audio_too_long"
                )
    except AudioError as error:
        raise Refused(400, str(error), "file", "invalid_audio") from None
    return events + await state.engine.run(session.finish_task())


def _blocks(file: BinaryIO, name: str) -> Iterator[np.ndarray]:
    for block in decode_blocks(file, name=name):
        for first in range(0, len(block), BLOCK):
            yield block[first : first + BLOCK]


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """List the one model that is being served."""
    return {"object": "list", "data": [_model(request)] if request.app.state.server.watcher.current else []}


@router.get("/v1/models/{name}")
async def model(request: Request, name: str) -> dict[str, Any]:
    """Describe the model that is being served, by its name."""
    current = request.app.state.server.watcher.current
    if current is None or current.version != name:
        raise Refused(404, f"the model {name[:100]!r} is not being served", "model", "model_not_found")
    return _model(request)


def _model(request: Request) -> dict[str, Any]:
    served = request.app.state.server.model()
    return {"id": served.version, "object": "model", "created": int(served.since), "owned_by": "raysr"}


async def refused(_: Request, error: Exception) -> Response:
    """Answer :class:`Refused` in OpenAI's form."""
    assert isinstance(error, Refused)
    return _error(error.status, str(error), error.param, error.code)


async def not_served(_: Request, error: Exception) -> Response:
    """Answer an unknown path or method in OpenAI's form too: its SDK reads nothing else."""
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail), None, None)


async def failed(_: Request, __: Exception) -> Response:
    """Answer what we did not foresee; the log has the traceback, the client gets a sentence."""
    return _error(500, "the server failed; its log says why", None, "internal_error")


def _error(status: int, message: str, param: str | None, code: str | None) -> Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return JSONResponse(body, status, headers={"retry-after": "1"} if status == 503 else None)
