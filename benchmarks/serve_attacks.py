"""What hostile clients of an endpoint do: each case something that goes wrong, drawn by a generator of its own."""

import base64
import io
import json
import random
import socket
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import av
import numpy as np
from websockets.sync.client import ClientConnection, connect

from raysr.audio.encode import encode_opus, wav_bytes

ADDRESSES = (
    "/v1/listen?encoding=linear16&sample_rate=16000&interim_results=true",
    "/v1/listen?encoding=linear32&sample_rate=8000",
    "/v1/listen?encoding=mulaw&channels=2&utterance_end_ms=1000&vad_events=true",
    "/v1/realtime?intent=transcription",
    "/vosk",
)
WORDS = [
    "type",
    "session",
    "audio",
    "input",
    "config",
    "sample_rate",
    "eof",
    "reset",
    "words",
    "Finalize",
    "KeepAlive",
    "CloseStream",
    "session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "turn_detection",
    "transcription",
    "keywords",
    "phrase_list",
    "max_alternatives",
    "format",
    "rate",
]

Case = Callable[[str, random.Random], int | None]
"""Does something to an endpoint, and returns the status of HTTP if it got one."""


def fuzzed_messages(url: str, draws: random.Random) -> None:
    """Send messages of all sorts to a live socket, and leave in one of many ways."""
    with _socket(url, draws.choice(ADDRESSES)) as client:
        for _ in range(draws.randrange(9)):
            client.send(message(draws))
        leave(client, draws)


def message(draws: random.Random) -> bytes | str:
    """Return something that a client might send."""
    match draws.randrange(7):
        case 0:
            return draws.randbytes(draws.randrange(4000))
        case 1:
            return struct.pack("<4f", *draws.choices([0.0, 1e30, float("nan"), float("inf"), -1.0], k=4))
        case 2:
            return "".join(chr(draws.randrange(1, 0xD7FF)) for _ in range(draws.randrange(50)))
        case 3:
            audio = base64.b64encode(draws.randbytes(draws.randrange(3000))).decode()
            return json.dumps({"type": "input_audio_buffer.append", "audio": audio[draws.randrange(3) :]})
        case 4:
            return "[" * draws.randrange(5000)
        case _:
            return json.dumps(value(draws, 3))


def value(draws: random.Random, depth: int) -> Any:
    """Return JSON of words that the dialects know."""
    match draws.randrange(6 if depth else 3):
        case 0:
            return draws.choice(WORDS)
        case 1:
            return draws.choice([None, True, -1, 0, 16000, 1e308, 10**400, "", "\0", "é" * 100])
        case 2:
            return draws.random()
        case 3:
            return [value(draws, depth - 1) for _ in range(draws.randrange(4))]
        case _:
            return {draws.choice(WORDS): value(draws, depth - 1) for _ in range(draws.randrange(4))}


def leave(client: ClientConnection, draws: random.Random) -> None:
    """End a connection: in order, by a close, or by cutting it."""
    match draws.randrange(3):
        case 0:
            client.send(draws.choice(['{"type": "CloseStream"}', '{"eof": 1}']))
            deadline = time.monotonic() + 2
            while time.monotonic() < deadline:
                client.recv(timeout=1)
        case 1:
            client.close()
        case _:
            client.socket.close()


HANDSHAKE = (
    "GET {} HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def broken_frames(url: str, draws: random.Random) -> None:
    """Send bytes that are no WebSocket, or frames that may not be."""
    with _raw(url) as client:
        hello = HANDSHAKE.format(draws.choice(ADDRESSES)).encode()
        match draws.randrange(6):
            case 0:
                client.sendall(hello[: draws.randrange(len(hello))])
            case 1:
                client.sendall(hello + frame(2, b"x", length=8 << 30))
            case 2:
                client.sendall(hello + frame(draws.randrange(16), draws.randbytes(draws.randrange(200))))
            case 3:
                client.sendall(hello + frame(2, bytes(1000))[: draws.randrange(1000)])
            case 4:
                client.sendall(hello + frame(9, b"ping") * draws.randrange(5000))
            case _:
                client.sendall(draws.randbytes(draws.randrange(3000)))
        if draws.random() < 0.5:
            client.settimeout(0.2)
            client.recv(1 << 16)


def frame(opcode: int, payload: bytes, length: int | None = None) -> bytes:
    """Return a masked frame that says that it has ``length`` bytes."""
    size = len(payload) if length is None else length
    return struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size) + bytes(4) + payload


def never_reads(url: str, draws: random.Random) -> None:
    """Ask and ask, and read no answer."""
    with _raw(url) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(HANDSHAKE.format("/v1/realtime").encode())
        client.settimeout(0.5)
        client.sendall(frame(1, b'{"type": "session.update", "session": {}}') * 20_000)


def bad_container(url: str, draws: random.Random) -> None:
    """Stream a container that is damaged, or none."""
    with _socket(url, "/v1/listen?model=any") as client:
        data = damaged(draws, draws.choice([ogg(), wav()]))
        for first in range(0, len(data), 4000):
            client.send(data[first : first + 4000])
        leave(client, draws)


def bad_file(url: str, draws: random.Random) -> int | None:
    """Upload a file that is damaged, or none."""
    match draws.randrange(8):
        case 0:
            data = draws.choice(
                [b"", b"RIFF", b"#EXTM3U\nhttp://127.0.0.1/\n", b"ffconcat version 1.0\nfile /etc/passwd"]
            )
        case 1:
            data = wav_bytes(np.full(1000, np.nan, np.float32))
        case 2:
            data = bomb()
        case 3:
            data = draws.randbytes(draws.randrange(20_000))
        case _:
            data = damaged(draws, draws.choice([ogg(), wav()]))
    fields = {"model": "any", "response_format": draws.choice(["json", "srt", "verbose_json", "yaml", "\0"])}
    if draws.random() < 0.3:
        fields["stream"] = "true"
    return upload(url, data, fields, cut=draws.random() < 0.1, draws=draws)


def upload(url: str, data: bytes, fields: dict[str, str], cut: bool, draws: random.Random) -> int | None:
    """Post a form with a file; ``cut`` leaves in the middle of it."""
    parts = [
        f'--b\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
        for name, text in fields.items()
    ]
    head = '--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    body = "".join([*parts, head]).encode() + data + b"\r\n--b--\r\n"
    if cut:
        with _raw(url) as client:
            client.sendall(
                b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: h\r\n"
                b"Content-Type: multipart/form-data; boundary=b\r\n"
                + f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body[: draws.randrange(len(body))]
            )
        return None
    headers = {"content-type": "multipart/form-data; boundary=b"}
    request = urllib.request.Request(f"{url}/v1/audio/transcriptions", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def damaged(draws: random.Random, data: bytes) -> bytes:
    """Return a file with bytes changed, left out, or cut off."""
    changed = bytearray(data)
    for _ in range(draws.randrange(1, 30)):
        changed[draws.randrange(len(changed))] = draws.randrange(256)
    if draws.random() < 0.5:
        first = draws.randrange(len(changed))
        del changed[first : first + draws.randrange(2000)]
    return bytes(changed[: draws.randrange(1, len(changed))] if draws.random() < 0.5 else changed)


@cache
def ogg() -> bytes:
    """Return three seconds of noise as Ogg Opus."""
    return encode_opus(np.random.default_rng(0).normal(0, 0.1, 48000).astype(np.float32), 16000)


@cache
def wav() -> bytes:
    """Return three seconds of noise as WAV."""
    return wav_bytes(np.random.default_rng(0).normal(0, 0.1, 48000).astype(np.float32))


@cache
def bomb() -> bytes:
    """Return three hours of silence, which take little room in FLAC."""
    output = io.BytesIO()
    with av.open(output, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=8000)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        block = av.AudioFrame.from_ndarray(np.zeros((1, 60 * 8000), np.int16), format="s16", layout="mono")
        block.rate = 8000
        for _ in range(180):
            block.pts = None
            container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    return output.getvalue()


CASES: Sequence[tuple[Case, float]] = (
    (fuzzed_messages, 0.6),
    (broken_frames, 0.3),
    (bad_file, 0.07),
    (bad_container, 0.025),
    (never_reads, 0.005),
)


def _socket(url: str, address: str) -> ClientConnection:
    return connect(url.replace("http", "ws") + address, open_timeout=20, close_timeout=1)


def _raw(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)
