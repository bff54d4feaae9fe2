"""A client of vosk-server hears from us what it hears from vosk-server: one answer to each message of audio."""

import asyncio
import json
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from endpoint import Server, messages, pcm16, transcribed
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_language import sung
from vosk.transcriber.transcriber import Transcriber
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from raysr.serving.live import PAUSE_SECONDS

SAID = "bad cafe, head ache"
RATE = {"config": {"sample_rate": 16000}}


def opened(server: Server) -> ClientConnection:
    return connect(server.url.replace("http", "ws") + "/vosk", open_timeout=20, close_timeout=5)


def conversed(socket: ClientConnection, pcm: bytes, packet: int = 8000) -> list[dict[str, Any]]:
    """Send audio as vosk-server's own client does, each message after the answer to the one before, to the end."""
    answers = []
    for first in range(0, len(pcm), packet):
        socket.send(pcm[first : first + packet])
        answers.append(json.loads(socket.recv(timeout=20)))
    socket.send('{"eof" : 1}')
    answers.append(json.loads(socket.recv(timeout=20)))
    with pytest.raises(ConnectionClosed):
        socket.recv(timeout=20)
    assert socket.close_code == 1000
    return answers


def text_of(answers: list[dict[str, Any]]) -> str:
    return " ".join(answer["text"] for answer in answers if answer.get("text"))


@pytest.mark.parametrize("packet", [160, 8000, 8001, 100_000])
def test_each_message_is_answered_once_and_the_text_is_that_of_an_upload(server: Server, packet: int) -> None:
    with opened(server) as socket:
        socket.send(json.dumps(RATE))
        answers = conversed(socket, pcm16(SAID), packet)
    assert all(("partial" in answer) != ("text" in answer) for answer in answers)
    assert text_of(answers) == transcribed(server, pcm16(SAID)) == "bad cafe head ache"
    words = [word for answer in answers for word in answer.get("result", [])]
    assert [word["word"] for word in words] == SAID.replace(",", "").split()
    assert all(word["start"] < word["end"] and 0 < word["conf"] <= 1 for word in words)
    if packet == 8000:
        assert {answer["partial"] for answer in answers if "partial" in answer} > {"", "bad"}


def test_the_client_of_the_vosk_package_hears_the_text_of_an_upload(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "speech.raw"
    file.write_bytes(pcm16(SAID))
    # its constructor would load a model, which a client of a server has no use for
    client: Any = Transcriber.__new__(Transcriber)
    client.args = Namespace(server=server.url.replace("http", "ws") + "/vosk", output_type="txt")

    async def recognised() -> tuple[list[dict[str, Any]], int]:
        audio = await asyncio.create_subprocess_exec("cat", str(file), stdout=asyncio.subprocess.PIPE)
        found: tuple[list[dict[str, Any]], int] = await client.recognize_stream_server(audio)
        return found

    results, sent = asyncio.run(recognised())
    assert sent == file.stat().st_size
    assert client.format_result(results) == "bad cafe\nhead ache\n"
    client.args.output_type = "srt"
    assert "00:00:00," in client.format_result(results)
    assert " ".join(client.format_result(results).split()).count(" --> ") == 2
    assert text_of(results) == transcribed(server, pcm16(SAID))


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, 2 * len(sung(SAID, seed=5))), max_size=30))
def test_as_many_answers_as_messages_also_for_who_does_not_wait(server: Server, cuts: list[int]) -> None:
    pcm, cuts = pcm16(SAID), sorted(cuts)
    with opened(server) as socket:
        socket.send(json.dumps(RATE))
        for first, last in zip([0, *cuts], [*cuts, len(pcm)], strict=True):
            socket.send(pcm[first:last])
        socket.send('{"eof":1}')
        answers = messages(socket)
    assert len(answers) == len(cuts) + 2
    assert text_of(answers) == "bad cafe head ache"


def test_the_default_rate_is_that_of_telephones_and_a_float_will_do(server: Server) -> None:
    telephone = (sung(SAID, 8000, seed=5) * 32768).astype("<i2").tobytes()
    with opened(server) as socket:
        assert text_of(conversed(socket, telephone)) == transcribed(server, telephone, 8000)
    with opened(server) as socket:
        socket.send('{ "config" : { "sample_rate" : 16000.0, "words" : 0, "num_results": 3 } }')
        answers = conversed(socket, pcm16(SAID))
    assert text_of(answers) == "bad cafe head ache"
    assert not any("result" in answer for answer in answers)


def test_a_reset_brings_a_final_and_the_stream_goes_on(server: Server) -> None:
    with opened(server) as socket:
        socket.send(json.dumps(RATE))
        socket.send(pcm16("bad cafe"))
        assert "partial" in json.loads(socket.recv(timeout=20))
        socket.send('{"reset" : 1}')
        assert json.loads(socket.recv(timeout=20))["text"] == "bad cafe"
        assert text_of(conversed(socket, pcm16("head"))) == "head"


def test_a_pause_is_answered_by_nothing_and_the_next_message_once(server: Server) -> None:
    pcm = pcm16("bad cafe, head")
    middle = len(pcm) // 4 * 2
    with opened(server) as socket:
        socket.send(json.dumps(RATE))
        socket.send(pcm[:middle])
        answers = [json.loads(socket.recv(timeout=20))]
        with pytest.raises(TimeoutError):
            socket.recv(timeout=2.5 * PAUSE_SECONDS)
        socket.send(pcm[middle:])
        answers.append(json.loads(socket.recv(timeout=20)))
        socket.send('{"eof" : 1}')
        answers.append(json.loads(socket.recv(timeout=20)))
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=20)
    assert text_of(answers) == "bad cafe head"


def test_a_caller_on_hold_is_not_cut_off(start: Callable[..., Server]) -> None:
    server = start(limits={"idle_seconds": 0.3, "quiet_seconds": 4.0})
    with opened(server) as socket:
        socket.send(json.dumps(RATE))
        time.sleep(1.0)
        socket.send(pcm16("bad"))
        assert "partial" in json.loads(socket.recv(timeout=20))
        assert json.loads(socket.recv(timeout=20))["text"] == "bad"
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=20)
    assert socket.close_code == 1011
    assert socket.close_reason == "nothing came for 4 s"


def test_an_end_without_audio_is_answered_too(server: Server) -> None:
    with opened(server) as socket:
        assert conversed(socket, b"") == [{"text": ""}]


def test_alternatives_have_a_confidence(server: Server) -> None:
    with opened(server) as socket:
        socket.send(json.dumps({"config": {"sample_rate": 16000, "max_alternatives": 3}}))
        (best,) = conversed(socket, pcm16("bad"))[-1]["alternatives"]
    assert best["text"] == "bad"
    assert best["confidence"] == pytest.approx(best["result"][0]["conf"])


def test_phrases_are_boosted(server: Server) -> None:
    with opened(server) as socket:
        socket.send(json.dumps({"config": {"sample_rate": 16000, "phrase_list": ["dad:10"]}}))
        assert "dad" in text_of(conversed(socket, pcm16("bad"))).split()


@pytest.mark.parametrize(
    ("sent", "code", "told"),
    [
        ('{"config": {"sample_rate": "fast"}}', 1008, "config: sample_rate: Input should be a valid number"),
        ('{"config": {"sample_rate": 100}}', 1008, "between 4000 and 192000 Hz"),
        ('{"config": 3}', 1008, "config: Input should be"),
        ('{"config": {"sample_rate": 16000, "phrase_list": ["zoo"]}}', 1008, "never learned to write"),
        ("hello", 1003, "a text message should be a JSON object"),
        ("[" * 5000, 1003, "a text message should be a JSON object"),
        ('{"dance": 1}', 1003, "a text message should be {'config'"),
    ],
)
def test_what_may_not_come_closes_the_socket_with_the_reason(
    server: Server, sent: str, code: int, told: str
) -> None:
    with opened(server) as socket:
        socket.send(sent)
        if "zoo" in sent:
            socket.send(np.zeros(800, "<i2").tobytes())
        assert messages(socket) == []
        assert socket.close_code == code
        assert told in (socket.close_reason or "")


def test_a_full_house_says_come_again(start: Callable[..., Server]) -> None:
    server = start(limits={"sessions": 1})
    with opened(server) as first:
        first.send(json.dumps(RATE))
        first.send(pcm16("bad"))
        first.recv(timeout=20)
        with opened(server) as second:
            assert messages(second) == []
            assert second.close_code == 1013
        assert text_of(conversed(first, b"")) == "bad"
