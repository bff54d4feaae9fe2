"""A line of the log tells of every stream and file whose it was and what came of it; as JSON where programs read it."""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from endpoint import Server, messages, pcm16, wav

from raysr.serving import logs

CLOSE = json.dumps({"type": "CloseStream"})


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Collect what an endpoint in this process writes as JSON."""
    logger = logging.getLogger("raysr")
    before = logger.handlers[:], logger.level, logger.propagate
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    logs.configure("json")
    yield output
    logger.handlers[:], logger.level, logger.propagate = before


def accounts(output: io.StringIO) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in output.getvalue().splitlines()]
    return [line for line in lines if line["logger"] == "raysr.serving.logs"]


def test_every_stream_and_file_has_its_line(
    start: Callable[..., Server], written: io.StringIO, tmp_path: Any
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alice: 0123456789abcdef-secret\n")
    server = start(keys=str(keys), limits={"session_seconds": 3})
    token = {"token": "0123456789abcdef-secret"}
    with server.listen(**token) as socket:
        socket.send(pcm16("bad cafe"))
        socket.send(CLOSE)
        found = messages(socket)
    session = found[-1]["request_id"]
    with server.listen(**token) as socket:
        for _ in range(9):
            socket.send(pcm16("bad cafe"))
        messages(socket)
    with server.listen() as socket:
        messages(socket)
    sdk = openai.OpenAI(base_url=f"{server.url}/v1", api_key=token["token"], max_retries=0)
    sdk.audio.transcriptions.create(model="any", file=("speech.wav", wav("bad cafe")))
    with pytest.raises(openai.BadRequestError):
        sdk.audio.transcriptions.create(model="any", file=("speech.wav", b"dear all"))
    stranger = openai.OpenAI(base_url=f"{server.url}/v1", api_key="another-key-than-that", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.audio.transcriptions.create(model="any", file=("speech.wav", wav("bad cafe")))
    with server.listen(channels="many", **token) as socket:
        messages(socket)

    good, long, denied, file, junk, unknown, wrong = accounts(written)
    assert good["session"] == session
    assert good["level"] == "INFO"
    assert {key: good[key] for key in ("protocol", "client", "outcome", "model", "finals")} == {
        "protocol": "deepgram",
        "client": "alice",
        "outcome": "ended",
        "model": "first",
        "finals": 1,
    }
    assert good["audio_seconds"] == pytest.approx(len(pcm16("bad cafe")) / 32000, abs=0.01)
    assert good["seconds"] >= 0
    assert (long["outcome"], denied["outcome"], denied["client"]) == ("too_long", "denied", "")
    assert (file["protocol"], file["outcome"], file["client"]) == ("file", "ended", "alice")
    assert (junk["protocol"], junk["outcome"]) == ("file", "invalid_audio")
    assert (unknown["protocol"], unknown["outcome"]) == ("file", "invalid_api_key")
    assert (wrong["protocol"], wrong["outcome"], wrong["client"]) == ("deepgram", "request", "alice")
    assert token["token"] not in written.getvalue()
    assert "bad cafe" not in written.getvalue(), "what people say is no matter of the log"


@pytest.mark.usefixtures("written")  # which puts things back
def test_lines_for_people_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text")
    account = logs.Account("vosk", "one")
    account.outcome, account.audio_seconds = "left", 1.5
    account.write()
    assert "protocol=vosk session=one outcome=left audio_seconds=1.5" in capsys.readouterr().err
