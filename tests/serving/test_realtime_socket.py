"""The OpenAI SDK's Realtime client transcribes: by the speaker's turns, or by what it commits."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import openai
import pytest
from endpoint import Server, messages, pcm16, transcribed
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.resources.realtime.realtime import RealtimeConnection
from toy_language import silence, sung
from websockets.sync.client import ClientConnection, connect

SAID = "bad cafe, head ache"
RATE = 24000


def pcm24(text: str, seed: int = 5) -> bytes:
    return (sung(text, RATE, seed=seed) * 32768).astype("<i2").tobytes()


QUIET = (silence(1.5, RATE) * 32768).astype("<i2").tobytes()


@contextmanager
def connected(server: Server, **audio: Any) -> Iterator[RealtimeConnection]:
    """Open a session by the SDK, with settings of ``audio.input``."""
    sdk = openai.OpenAI(
        base_url=f"{server.url}/v1",
        websocket_base_url=server.url.replace("http", "ws") + "/v1",
        api_key="any",
    )
    with sdk.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        assert connection.recv().type == "session.created"
        connection.session.update(session={"type": "transcription", "audio": {"input": audio}})
        updated = connection.recv()
        assert updated.type == "session.updated", updated
        yield connection


def sent(connection: RealtimeConnection, pcm: bytes, packet: int = 9600) -> None:
    for first in range(0, len(pcm), packet):
        connection.input_audio_buffer.append(audio=base64.b64encode(pcm[first : first + packet]).decode())


def until_completed(connection: RealtimeConnection, times: int = 1) -> list[Any]:
    found: list[Any] = []
    while sum(event.type.endswith("transcription.completed") for event in found) < times:
        found.append(connection.recv())
    return found


def completed(events: list[Any]) -> list[Any]:
    return [event for event in events if event.type.endswith("transcription.completed")]


def test_each_turn_is_an_item_with_its_deltas_and_its_transcript(server: Server) -> None:
    pcm = pcm24(SAID) + QUIET
    with connected(server, transcription={"model": "gpt-4o-transcribe", "language": "en"}) as connection:
        sent(connection, pcm)
        events = until_completed(connection, times=2)
    kinds = [event.type.removeprefix("input_audio_buffer.") for event in events]
    first, second = completed(events)
    assert [first.transcript, second.transcript] == ["bad cafe", "head ache"]
    heard = transcribed(server, pcm, RATE)
    assert " ".join(item.transcript for item in (first, second)) == heard
    for done in (first, second):
        of_item = [e for e in events if getattr(e, "item_id", None) == done.item_id]
        assert of_item[0].type == "input_audio_buffer.speech_started"
        deltas = [e.delta for e in of_item if e.type.endswith("transcription.delta")]
        assert "".join(deltas) == done.transcript
        assert done.usage.type == "duration"
        assert done.content_index == 0
    assert kinds.index("speech_started") < kinds.index("speech_stopped") < kinds.index("committed")
    committed = [event for event in events if event.type == "input_audio_buffer.committed"]
    assert committed[1].previous_item_id == committed[0].item_id == first.item_id
    added = [event for event in events if event.type == "conversation.item.added"]
    assert [event.item.id for event in added] == [first.item_id, second.item_id]
    starts = [e.audio_start_ms for e in events if e.type == "input_audio_buffer.speech_started"]
    stops = [e.audio_end_ms for e in events if e.type == "input_audio_buffer.speech_stopped"]
    assert starts[0] < stops[0] <= starts[1] < stops[1] <= len(pcm) / RATE / 2 * 1000


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, len(pcm24(SAID))), max_size=20))
def test_without_turns_an_item_is_what_is_committed_however_it_is_cut(
    server: Server, cuts: list[int]
) -> None:
    pcm, cuts = pcm24(SAID), sorted(cuts)
    with connected(server, turn_detection=None) as connection:
        for first, last in zip([0, *cuts], [*cuts, len(pcm)], strict=True):
            connection.input_audio_buffer.append(audio=base64.b64encode(pcm[first:last]).decode())
        connection.input_audio_buffer.commit()
        events = until_completed(connection)
        connection.input_audio_buffer.commit()
        again = until_completed(connection)
    (item,) = completed(events)
    assert item.transcript == transcribed(server, pcm, RATE) == "bad cafe head ache"
    assert "".join(e.delta for e in events if e.type.endswith("delta")) == item.transcript
    assert not any("speech_" in event.type for event in events)
    assert completed(again)[0].transcript == ""
    assert again[0].previous_item_id == item.item_id


def test_a_commit_in_the_middle_of_a_turn_ends_it(server: Server) -> None:
    with connected(server) as connection:
        sent(connection, pcm24("bad cafe"))
        connection.input_audio_buffer.commit()
        (item,) = completed(until_completed(connection))
        assert item.transcript == "bad cafe"


def test_what_is_cleared_is_not_transcribed(server: Server) -> None:
    with connected(server, turn_detection=None) as connection:
        sent(connection, pcm24("beg"))
        connection.input_audio_buffer.commit()
        (first,) = completed(until_completed(connection))
        sent(connection, pcm24("bad cafe"))
        connection.input_audio_buffer.clear()
        sent(connection, pcm24("head"))
        connection.input_audio_buffer.commit()
        events = until_completed(connection)
    assert "input_audio_buffer.cleared" in [event.type for event in events]
    assert [item.transcript for item in completed(events)] == ["head"]
    committed = [event for event in events if event.type == "input_audio_buffer.committed"]
    assert [event.previous_item_id for event in committed] == [
        first.item_id
    ]  # what was cleared is in no chain


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcma"])
def test_telephone_audio(server: Server, kind: str) -> None:
    samples = sung(SAID, 8000, seed=5)
    if kind == "audio/pcmu":
        magnitude = np.log1p(255 * np.abs(samples)) / np.log(256) * 127
        raw = (~np.where(samples < 0, magnitude + 128, magnitude).astype(np.uint8)).tobytes()
    else:
        size = np.abs(samples) * 87.6
        companded = np.where(size < 1, size, 1 + np.log(np.maximum(size, 1))) / (1 + np.log(87.6))
        raw = (
            ((companded * 127).astype(np.uint8) | np.where(samples < 0, 0, 128).astype(np.uint8)) ^ 0x55
        ).tobytes()
    with connected(server, format={"type": kind}, turn_detection=None) as connection:
        sent(connection, raw)
        connection.input_audio_buffer.commit()
        (item,) = completed(until_completed(connection))
    # half the band and the noise of eight bits: the model hears the letters, if not where words end
    assert item.transcript.replace(" ", "") == "badcafeheadache"


def test_keywords_are_boosted(server: Server) -> None:
    with connected(server, transcription={"keywords": ["dad:10"]}, turn_detection=None) as connection:
        sent(connection, pcm24("bad"))
        connection.input_audio_buffer.commit()
        (item,) = completed(until_completed(connection))
    assert "dad" in item.transcript.split()


def opened(server: Server, **headers: str) -> ClientConnection:
    address = server.url.replace("http", "ws") + "/v1/realtime?intent=transcription"
    return connect(address, additional_headers=headers, open_timeout=20, close_timeout=5)


def answer(socket: ClientConnection, event: Any) -> dict[str, Any]:
    socket.send(event if isinstance(event, str) else json.dumps(event))
    found: dict[str, Any] = json.loads(socket.recv(timeout=20))
    return found


def updated(**settings: Any) -> dict[str, Any]:
    return {"type": "session.update", "event_id": "mine", "session": settings}


@pytest.mark.parametrize(
    ("event", "code", "told"),
    [
        (updated(type="realtime"), "invalid_value", "session.type: Input should be 'transcription'"),
        (updated(audio={"input": {"format": {"type": "audio/mp3"}}}), "invalid_value", "format.type"),
        (updated(audio={"input": 3}), "invalid_value", "session.audio.input"),
        ({"type": "session.update", "event_id": "mine"}, "invalid_value", "session should be an object"),
        (
            {"type": "input_audio_buffer.append", "audio": "§", "event_id": "mine"},
            "invalid_value",
            "audio should be base64",
        ),
        ({"type": "input_audio_buffer.append", "event_id": "mine"}, "invalid_value", "should be base64"),
        ({"type": "response.create", "event_id": "mine"}, "unknown_event", "'response.create'"),
        ({"event_id": "mine"}, "unknown_event", "not understood"),
    ],
)
def test_an_event_that_cannot_be_done_is_answered_and_the_session_goes_on(
    server: Server, event: dict[str, Any], code: str, told: str
) -> None:
    with opened(server) as socket:
        socket.recv(timeout=20)
        error = answer(socket, event)
        assert error["type"] == "error"
        assert error["error"]["code"] == code
        assert error["error"]["event_id"] == "mine"
        assert told in error["error"]["message"]
        assert answer(socket, updated())["type"] == "session.updated"


def test_what_is_no_event_ends_the_session_with_an_error(server: Server) -> None:
    for junk in ("hello", "[" * 4000, "3"):
        with opened(server) as socket:
            socket.recv(timeout=20)
            assert answer(socket, junk)["error"]["code"] == "message"
            assert messages(socket) == []
            assert socket.close_code == 1003


def test_the_rate_cannot_change_under_the_audio(server: Server) -> None:
    with opened(server) as socket:
        socket.recv(timeout=20)
        audio = base64.b64encode(bytes(9600)).decode()
        socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        error = answer(socket, updated(audio={"input": {"format": {"type": "audio/pcmu"}}}))
        assert error["error"]["code"] == "too_late"
        assert answer(socket, updated(audio={"input": {"turn_detection": None}}))["type"] == "session.updated"


def test_a_phrase_that_cannot_be_boosted_ends_the_session_with_its_name(server: Server) -> None:
    with opened(server) as socket:
        socket.recv(timeout=20)
        answer(socket, updated(audio={"input": {"transcription": {"keywords": ["zoo"]}}}))
        error = answer(socket, {"type": "input_audio_buffer.append", "audio": "AAAA"})
        assert "never learned to write o z of 'zoo'" in error["error"]["message"]
        assert messages(socket) == []
        assert socket.close_code == 1008


def test_clients_of_the_beta_are_understood(server: Server) -> None:
    with opened(server, **{"OpenAI-Beta": "realtime=v1"}) as socket:
        assert json.loads(socket.recv(timeout=20))["type"] == "transcription_session.created"
        session = {
            "input_audio_format": "pcm16",
            "input_audio_transcription": {"model": "whisper-1"},
            "turn_detection": None,
        }
        found = answer(socket, {"type": "transcription_session.update", "session": session})
        assert found["type"] == "transcription_session.updated"
        assert found["session"]["turn_detection"] is None
        audio = base64.b64encode(pcm24("bad")).decode()
        socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        socket.send(json.dumps({"type": "input_audio_buffer.commit"}))
        while (event := json.loads(socket.recv(timeout=20)))["type"].split(".")[-1] != "completed":
            pass
        assert event["transcript"] == "bad"


def test_a_full_house_and_another_language_are_told_so(start: Callable[..., Server]) -> None:
    server = start(limits={"sessions": 1}, language="en")
    with opened(server) as socket:
        socket.recv(timeout=20)
        error = answer(socket, updated(audio={"input": {"transcription": {"language": "de"}}}))
        assert "this endpoint hears en" in error["error"]["message"]
        begin = time.monotonic()
        with opened(server) as second:
            (error,) = messages(second)
            assert (error["error"]["code"], second.close_code) == ("full", 1013)
        assert time.monotonic() - begin < 2


def test_an_upload_and_a_session_at_16_khz_agree(server: Server) -> None:
    with connected(server, format={"type": "audio/pcm", "rate": 16000}, turn_detection=None) as connection:
        sent(connection, pcm16(SAID))
        connection.input_audio_buffer.commit()
        (item,) = completed(until_completed(connection))
    assert item.transcript == transcribed(server, pcm16(SAID))
