"""Clients that send anything at all: no failure of ours, nobody else notices, and every place is free again."""

import base64
import contextlib
import json
import os
import socket
import threading
import time
import urllib.request
from collections.abc import Callable

import pytest
from endpoint import Server, messages, pcm16, said
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from benchmarks.serve_attacks import HANDSHAKE as HANDSHAKES
from benchmarks.serve_attacks import WORDS, frame

CLOSE = json.dumps({"type": "CloseStream"})
ADDRESSES = (
    "/v1/listen?encoding=linear16&sample_rate=16000&interim_results=true",
    "/v1/listen?encoding=linear32&sample_rate=8000",
    "/v1/realtime?intent=transcription",
    "/vosk",
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(WORDS), st.text(max_size=20)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.one_of(
    st.binary(max_size=3000),
    st.text(max_size=200),
    VALUES.map(json.dumps),
    st.builds(lambda audio: json.dumps({"type": "input_audio_buffer.append", "audio": audio}), st.text()),
    st.binary(max_size=2000).map(
        lambda raw: json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(raw).decode()})
    ),
    st.sampled_from(
        [
            json.dumps({"type": "input_audio_buffer.commit"}),
            json.dumps({"type": "input_audio_buffer.clear"}),
            json.dumps({"type": "Finalize"}),
            json.dumps({"config": {"sample_rate": 16000}}),
            json.dumps({"reset": 1}),
        ]
    ),
)


def failures(server: Server) -> dict[str, float]:
    """Return how often the endpoint itself has failed, by what it calls that."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    found = {line.split(" ")[0]: float(line.split(" ")[1]) for line in lines if "refused_total{" in line}
    return {name: count for name, count in found.items() if "internal" in name}


def sessions(server: Server) -> int:
    with urllib.request.urlopen(f"{server.url}/healthz", timeout=20) as answer:
        return int(json.load(answer)["sessions"])


def all_left(server: Server) -> None:
    deadline = time.monotonic() + 20
    while sessions(server):
        assert time.monotonic() < deadline, "a place is not given back"
        time.sleep(0.02)


@pytest.mark.parametrize("address", ADDRESSES)
@settings(max_examples=60, deadline=None)
@given(sent=st.lists(MESSAGES, max_size=8), leaves=st.sampled_from(["politely", "at once", "unread"]))
def test_whatever_a_client_sends_it_is_answered_or_closed(
    server: Server, address: str, sent: list[bytes | str], leaves: str
) -> None:
    address = server.url.replace("http", "ws") + address
    with contextlib.suppress(ConnectionClosed), connect(address, close_timeout=2) as client:
        for message in sent:
            client.send(message)
        if leaves == "politely":
            client.send(CLOSE if "listen" in address else '{"eof": 1}')
            if "realtime" not in address:
                messages(client)
        elif leaves == "at once":
            client.socket.close()
    assert failures(server) == {}


def test_others_hear_what_they_would_hear_alone_and_all_places_are_free_again(server: Server) -> None:
    honest: list[str] = []
    over = threading.Event()

    def speak() -> None:
        with server.listen() as client:
            for _ in range(4):
                pcm = pcm16("bad cafe, ")
                for first in range(0, len(pcm), 3200):
                    client.send(pcm[first : first + 3200])
                    time.sleep(0.01)
            client.send(CLOSE)
            honest.append(said(messages(client)))

    def harass(number: int) -> None:
        while not over.is_set():
            with contextlib.suppress(ConnectionClosed, OSError):
                address = ADDRESSES[number % len(ADDRESSES)]
                with connect(server.url.replace("http", "ws") + address, close_timeout=1) as client:
                    for size in (1, 3, 999, 70_000):
                        client.send(os.urandom(size))
                    client.send("}{")
                    client.socket.close()

    speakers = [threading.Thread(target=speak) for _ in range(3)]
    others = [threading.Thread(target=harass, args=(number,)) for number in range(4)]
    for thread in (*speakers, *others):
        thread.start()
    for thread in speakers:
        thread.join(120)
    over.set()
    for thread in others:
        thread.join(60)
    assert honest == [" ".join(["bad cafe"] * 4)] * 3
    assert failures(server) == {}
    all_left(server)


def raw(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


HANDSHAKE = HANDSHAKES.format("/v1/listen?encoding=linear16")


@pytest.mark.parametrize(
    "sent",
    [
        HANDSHAKE[:60].encode(),
        HANDSHAKE.encode() + frame(2, b"x", 8 << 30),
        HANDSHAKE.encode() + frame(2, bytes(100))[:40],
        HANDSHAKE.encode() + frame(3, b"reserved"),
        HANDSHAKE.encode() + frame(1, b"\xff\xfe"),
        HANDSHAKE.encode() + b"".join(frame(9, b"ping") for _ in range(20_000)),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: here\r\nContent-Length: 9999999\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n",
    ],
    ids=["half handshake", "8 GiB", "half frame", "reserved", "no UTF-8", "pings", "TLS", "half upload"],
)
def test_what_is_no_protocol_takes_nobodys_place_for_long(start: Callable[..., Server], sent: bytes) -> None:
    server = start(limits={"idle_seconds": 0.5, "sessions": 1, "uploads": 1})
    with raw(server) as client:
        with contextlib.suppress(OSError):
            client.sendall(sent)
        time.sleep(1.0)
        # the one place is free, though the client is still there
        with server.listen() as other:
            other.send(pcm16("bad"))
            other.send(CLOSE)
            assert said(messages(other)) == "bad"
    assert failures(server) == {}


def test_a_client_that_never_reads_is_given_up(start: Callable[..., Server]) -> None:
    server = start(limits={"send_seconds": 0.5, "sessions": 1, "idle_seconds": 60})
    host, port = server.url.removeprefix("http://").split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect((host, int(port)))
        client.sendall(HANDSHAKES.format("/v1/realtime").encode())
        question = frame(1, b'{"type": "session.update", "session": {}}')
        deadline = time.monotonic() + 120
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline:  # each is answered, until nothing more gets through
                client.sendall(question)
        assert time.monotonic() < deadline
        all_left(server)
    assert failures(server) == {}


def test_junk_in_a_query_is_refused_in_words(server: Server) -> None:
    for query in ("encoding=%00", "encoding=linear16&sample_rate=9e9", "encoding=linear16&channels=-1"):
        with connect(server.url.replace("http", "ws") + f"/v1/listen?{query}") as client:
            (error,) = messages(client)
            assert error["type"] == "Error"
            assert client.close_code == 1008
