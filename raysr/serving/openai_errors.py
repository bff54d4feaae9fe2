"""Errors of HTTP requests in OpenAI's form: its SDKs read nothing else, so unknown paths are answered so too."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

RETRY_AFTER_S = 1
MEANINGS: dict[int | str, str] = {
    400: "the request, or the audio, cannot be understood",
    401: "the API key is missing or unknown",
    404: "there is no such thing here",
    408: "nothing more of the upload came",
    413: "the file, or its audio, is larger than may be",
    429: "this API key has too many files at once: come again after `Retry-After` seconds",
    503: "the server is full, restarts, or has no model yet: come again after `Retry-After` seconds",
}


class Refused(Exception):
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        message: for people.
        param: the field that is at fault.
        code: for programs.
    """

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    @property
    def body(self) -> dict[str, Any]:
        """The content of the answer."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what the description of the API says of answers with these statuses."""
    return {status: {"description": MEANINGS[status]} for status in statuses}


def install(app: FastAPI) -> None:
    """Have an application answer all its errors so."""
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _not_served)
    app.add_exception_handler(Exception, _failed)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    if error.code:
        request.app.state.server.metrics.record("refused", reason=error.code)
    headers = {"retry-after": str(RETRY_AFTER_S)} if error.status in {429, 503} else None
    return JSONResponse(error.body, error.status, headers=headers)


async def _not_served(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return await _refused(request, Refused(error.status_code, str(error.detail)))


async def _failed(request: Request, __: Exception) -> Response:
    """Answer what we did not foresee; the log has the traceback, the client gets a sentence."""
    return await _refused(request, Refused(500, "the server failed; its log says why", code="internal_error"))
