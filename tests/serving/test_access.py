"""Keys let in who has one, wherever a client can put it; pages of other hosts stay out; no key is written anywhere."""

import base64
import contextlib
import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from deepgram import DeepgramClient
from deepgram.environment import DeepgramClientEnvironment
from endpoint import Server, messages, pcm16, publish, said, until, wav
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from raysr.errors import ConfigError
from raysr.pool import Recogniser
from raysr.serving.access import Access, read_keys

ONE, TWO = "one-and-only-key-0123", "two-and-other-key-4567"
CLOSE = json.dumps({"type": "CloseStream"})
Start = Callable[..., Server]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(f"# who, and with what\nalice: {ONE}\n\nbob: {TWO}  # until May\n")
    return file


def listened(server: Server, query: str = "", **options: Any) -> tuple[str | dict[str, Any], int]:
    """Return the text that a live stream has, or the error, and the code that it was closed with."""
    address = server.url.replace("http", "ws") + f"/v1/listen?encoding=linear16&sample_rate=16000{query}"
    with connect(address, open_timeout=20, close_timeout=5, **options) as socket:
        with contextlib.suppress(ConnectionClosed):
            socket.send(pcm16("bad"))
            socket.send(CLOSE)
        found = messages(socket)
        error = found[0] if found[0]["type"] == "Error" else None
        return error or said(found), socket.close_code or 0


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("", {"additional_headers": {"Authorization": f"Token {ONE}"}}),
        ("", {"additional_headers": {"Authorization": f"bearer {TWO}"}}),
        ("", {"additional_headers": {"X-API-Key": ONE}}),
        ("", {"subprotocols": ["token", ONE]}),
        ("", {"subprotocols": [f"openai-insecure-api-key.{ONE}", "token"]}),
        (f"&token={ONE}", {}),
    ],
)
def test_a_key_is_taken_from_wherever_a_client_can_put_it(
    start: Start, keys: Path, query: str, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert listened(start(keys=str(keys)), query, **options) == ("bad", 1000)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("raysr")]
    assert not any(ONE in line or TWO in line for line in ours)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "an API key is missing"),
        ({"additional_headers": {"Authorization": "Token wrong"}}, "this API key is not known here"),
        ({"additional_headers": {"Authorization": "Basic YTpi"}}, "an API key is missing"),
        ({"subprotocols": ["token"]}, "an API key is missing"),
    ],
)
def test_without_one_a_stream_is_refused_for_good(
    start: Start, keys: Path, options: dict[str, Any], told: str
) -> None:
    error, code = listened(start(keys=str(keys)), **options)
    assert code == 1008
    assert isinstance(error, dict)
    assert error["variant"] == "INVALID_AUTH"
    assert told in error["description"]


def test_other_dialects_refuse_in_their_own_words(start: Start, keys: Path) -> None:
    server = start(keys=str(keys))
    base = server.url.replace("http", "ws")
    with connect(f"{base}/v1/realtime?intent=transcription") as socket:
        (error,) = messages(socket)
        assert (error["error"]["code"], socket.close_code) == ("denied", 1008)
    with connect(f"{base}/vosk") as socket:
        assert messages(socket) == []
        assert (socket.close_code, "key is missing" in (socket.close_reason or "")) == (1008, True)


def test_the_sdks_send_theirs(start: Start, keys: Path) -> None:
    server = start(keys=str(keys))
    file = ("speech.wav", wav("bad"))
    sdk = openai.OpenAI(base_url=f"{server.url}/v1", api_key=ONE, max_retries=0)
    assert sdk.audio.transcriptions.create(model="m", file=file).text == "bad"
    assert [model.id for model in sdk.models.list().data] == ["first"]
    stranger = sdk.with_options(api_key="wrong")
    with pytest.raises(openai.AuthenticationError, match="not known here") as caught:
        stranger.audio.transcriptions.create(model="m", file=file)
    assert caught.value.code == "invalid_api_key"
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    base = server.url.replace("http", "ws")
    live = openai.OpenAI(base_url=f"{server.url}/v1", websocket_base_url=f"{base}/v1", api_key=TWO)
    with live.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        connection.input_audio_buffer.append(audio=base64.b64encode(bytes(4800)).decode())
        assert connection.recv().type == "session.created"
    environment = DeepgramClientEnvironment(
        base=server.url, production=base, agent=base, agent_rest=server.url
    )
    deepgram = DeepgramClient(api_key=ONE, environment=environment)
    with deepgram.listen.v1.connect(model="m", encoding="linear16", sample_rate=16000) as connection:
        connection.send_media(pcm16("bad"))
        connection.send_close_stream()
        assert connection.recv().channel.alternatives[0].transcript == "bad"


def test_health_and_the_page_ask_for_none(start: Start, keys: Path) -> None:
    server = start(keys=str(keys))
    for path in ("/healthz", "/", "/static/app.js"):
        with urllib.request.urlopen(f"{server.url}{path}", timeout=20) as answer:
            assert answer.status == 200


def test_one_key_cannot_take_all_places(start: Start, keys: Path) -> None:
    server = start(keys=str(keys), limits={"sessions": 3, "sessions_per_key": 1})
    address = server.url.replace("http", "ws") + "/v1/listen?encoding=linear16"
    with connect(address, additional_headers={"Authorization": f"Token {ONE}"}) as socket:
        socket.send(pcm16("bad"))
        error, code = listened(server, f"&token={ONE}")
        assert isinstance(error, dict)
        assert "all 1 places of your key are taken" in error["description"]
        assert code == 1013
        assert listened(server, f"&token={TWO}") == ("bad", 1000)
        socket.send(CLOSE)
        assert said(messages(socket)) == "bad"


def test_keys_change_while_it_runs_and_a_broken_file_changes_nothing(start: Start, keys: Path) -> None:
    server = start(keys=str(keys))
    new = "a-third-key-that-is-new"

    def rewritten(text: str) -> None:
        stat = keys.stat()
        keys.write_text(text)
        os.utime(keys, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))

    def lets_in(key: str) -> bool:
        request = urllib.request.Request(
            f"{server.url}/v1/models", headers={"Authorization": f"Bearer {key}"}
        )
        try:
            return bool(urllib.request.urlopen(request, timeout=20).status == 200)
        except urllib.error.HTTPError:
            return False

    def until(key: str, is_in: bool) -> None:
        for _ in range(2000):
            if lets_in(key) == is_in:
                return
        pytest.fail("the keys did not change")

    assert (lets_in(ONE), lets_in(new)) == (True, False)
    rewritten(f"carol: {new}\n")
    until(new, True)
    assert not lets_in(ONE)
    for spoil in (lambda: rewritten("carol\n"), keys.unlink):
        spoil()
        time.sleep(0.3)  # several looks at the file
        assert lets_in(new)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("alice\n", r"keys:1: should be 'name: key'"),
        (f"alice: {ONE}\nbob: short\n", r"keys:2: the key of bob should have 16 characters or more"),
        (f"alice: {ONE}\nalice: {TWO}\n", r"keys:2: alice has a key already"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_keys(tmp_path / "keys")
    with pytest.raises(ConfigError, match=told):
        Access(str(tmp_path / "keys"))


def test_a_key_that_a_browser_cannot_send_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("page: abcdefghijklmnop/rstuvw==\n")
    with pytest.raises(
        ConfigError, match=r"keys:1: the key of page has characters that browsers cannot send"
    ):
        read_keys(tmp_path / "keys")


def test_a_file_in_another_encoding_changes_nothing_and_stops_nothing(
    start: Start, keys: Path, recogniser: Recogniser, tmp_path: Path
) -> None:
    publish(tmp_path / "pool", "one", recogniser, cycle=0)
    server = start(keys=str(keys), pool=str(tmp_path / "pool"))
    keys.write_bytes("# Müller\n".encode("latin-1") + keys.read_bytes())
    publish(tmp_path / "pool", "two", recogniser, cycle=1)

    def model() -> str:
        with urllib.request.urlopen(f"{server.url}/healthz", timeout=20) as answer:
            return str(json.load(answer)["model"])

    until(lambda: model() == "two")
    with pytest.raises(ConfigError, match=r"keys: .*utf-8"):
        Access(str(keys))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none-such"):
        Access(str(tmp_path / "none-such"))


def test_pages_of_other_hosts_may_not_open_sockets_unless_they_are_listed(start: Start) -> None:
    own = start()
    assert listened(own, origin=own.url) == ("bad", 1000)
    error, code = listened(own, origin="https://evil.example")
    assert isinstance(error, dict)
    assert (code, "https://evil.example may not" in error["description"]) == (1008, True)
    listed = start(origins=["https://intranet.example"])
    assert listened(listed, origin="https://intranet.example") == ("bad", 1000)
    assert listened(listed, origin="https://evil.example")[1] == 1008
    assert listened(start(origins=["*"]), origin="https://evil.example") == ("bad", 1000)


def test_a_listed_page_may_read_answers(start: Start) -> None:
    server = start(origins=["https://intranet.example"])
    for origin, allowed in (("https://intranet.example", True), ("https://evil.example", False)):
        request = urllib.request.Request(f"{server.url}/v1/models", headers={"Origin": origin})
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert (answer.headers["access-control-allow-origin"] == origin) == allowed


def test_what_is_no_socket_of_ours_is_not_opened(server: Server) -> None:
    with pytest.raises(InvalidStatus), connect(server.url.replace("http", "ws") + "/v1/elsewhere"):
        pass
