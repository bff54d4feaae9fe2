"""A small client of the endpoint, for demonstrations and tests; any OpenAI or Deepgram client does the same."""

import asyncio
import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from raysr.audio.files import decode
from raysr.errors import RaysrError

RATE = 16000
PACKET_SECONDS = 0.1


class ServiceError(RaysrError):
    """The endpoint refused or failed, in its own words."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """A transcript, and the version of the model that made its last part."""

    text: str
    model: str


def transcribe_http(url: str, file: str | Path, timeout: float = 600.0) -> Transcript:
    """Upload ``file`` to ``/v1/audio/transcriptions`` and return its transcript; raise ServiceError with the reason."""
    path = Path(file)
    boundary = uuid.uuid4().hex
    parts = [_part(boundary, 'name="model"', b"raysr"), _part(boundary, 'name="response_format"', b"json")]
    parts.append(_part(boundary, f'name="file"; filename="audio{path.suffix}"', path.read_bytes()))
    request = urllib.request.Request(
        f"{url}/v1/audio/transcriptions",
        data=b"".join(parts) + f"--{boundary}--\r\n".encode(),
        headers={"content-type": f"multipart/form-data; boundary={boundary}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            body = json.load(answer)
    except urllib.error.HTTPError as error:
        raise ServiceError(f"{url}: {_reason(error)}") from None
    except OSError as error:
        raise ServiceError(f"{url} does not answer: {error}") from None
    return Transcript(body["text"], body["model"])


def transcribe_ws(
    url: str, file: str | Path, pace: float = 1.0, on_event: Callable[[dict[str, Any]], None] | None = None
) -> Transcript:
    """Stream ``file`` to ``/v1/listen`` and return its transcript; raise ServiceError with the reason.

    Args:
        url: of the endpoint, ``http://…``.
        file: any audio file.
        pace: seconds of sending per second of audio; 1 is as if it were spoken now, 0 as fast as it is taken.
        on_event: called with every message of the server, as it comes.
    """
    return asyncio.run(_stream(url, decode(file), pace, on_event))


async def _stream(
    url: str, samples: np.ndarray, pace: float, on_event: Callable[[dict[str, Any]], None] | None
) -> Transcript:
    # 32-bit samples are what the decoder gave: nothing is rounded on the way.
    address = (
        f"{url.replace('http', 'ws', 1)}/v1/listen?encoding=linear32&sample_rate={RATE}&interim_results=true"
    )
    finals: list[str] = []
    model = ""
    try:
        async with connect(address, max_size=None) as socket:
            sender = asyncio.create_task(_send(socket, samples, pace))
            try:
                async for raw in socket:
                    message = json.loads(raw)
                    if on_event is not None:
                        on_event(message)
                    if message["type"] == "Error":
                        raise ServiceError(f"{url}: {message['description']}")
                    if message.get("is_final"):
                        finals.append(message["channel"]["alternatives"][0]["transcript"])
                        model = message["metadata"]["model_info"]["version"]
            finally:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)
    except (WebSocketException, OSError) as error:
        raise ServiceError(f"{url} broke the stream off: {error}") from None
    return Transcript(" ".join(text for text in finals if text), model)


async def _send(socket: ClientConnection, samples: np.ndarray, pace: float) -> None:
    size = round(PACKET_SECONDS * RATE)
    begin = time.monotonic()
    for first in range(0, len(samples), size):
        # A schedule in absolute time: a late packet does not make the later ones later.
        due = begin + pace * (first + size) / RATE
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        await socket.send(samples[first : first + size].astype("<f4").tobytes())
    await socket.send(json.dumps({"type": "CloseStream"}))


def _part(boundary: str, disposition: str, body: bytes) -> bytes:
    return f"--{boundary}\r\ncontent-disposition: form-data; {disposition}\r\n\r\n".encode() + body + b"\r\n"


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.code}"
