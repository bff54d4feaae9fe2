"""Reading a multipart upload without ever holding more of it than the limit allows, or waiting for it for ever."""

import asyncio

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from raysr.decode.phrases import MOST

DRAIN_FACTOR = 4
FIELDS = MOST + 64
"""Of a form: SDKs send a field for every phrase."""


class TooLarge(Exception):
    """The body is longer than it may be."""


class Stalled(Exception):
    """Nothing more comes of the body."""


async def read_form(request: Request, limit: int, patience: float) -> FormData:
    """Parse a multipart body of at most ``limit`` bytes; files are spooled to disk by the parser.

    A longer body is read on and thrown away for a while, since many clients look for an answer only after
    they have sent everything.

    Raises:
        TooLarge: the body is longer.
        Stalled: nothing came for ``patience`` seconds.
        HTTPException: it is not multipart (400).
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise HTTPException(
            400, "the request should be multipart/form-data with the fields 'file' and 'model'"
        )
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await _next(request, patience)
        received += len(message.get("body", b""))
        if received > limit:
            await _drain(request, message, limit * DRAIN_FACTOR, patience)
            raise TooLarge(f"the upload is larger than {limit / 1e6:.3g} MB")
        return message

    return await Request(request.scope, receive).form(max_files=4, max_fields=FIELDS)


async def _drain(request: Request, message: Message, most: int, patience: float) -> None:
    drained = 0
    while message.get("more_body", False) and drained < most:
        message = await _next(request, patience)
        drained += len(message.get("body", b""))


async def _next(request: Request, patience: float) -> Message:
    try:
        return await asyncio.wait_for(request.receive(), patience)
    except TimeoutError:
        raise Stalled(f"nothing more of the upload came for {patience:g} s") from None
