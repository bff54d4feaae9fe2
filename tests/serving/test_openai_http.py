"""The OpenAI SDK, pointed at the endpoint, transcribes; what cannot be done is refused in words its users can read."""

import contextlib
import io
import json
import re
import socket
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import openai
import pytest
from endpoint import Server, pcm16, transcribed, wav
from toy_language import sung

from raysr.audio.files import encode_opus, wav_bytes

SAID = "bad cafe, head ache"
HEARD = "bad cafe head ache"


def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)


def transcribe(server: Server, audio: bytes, name: str = "speech.wav", **options: Any) -> Any:
    return client(server).audio.transcriptions.create(model="whisper-1", file=(name, audio), **options)


def post(server: Server, body: bytes, content_type: str) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        f"{server.url}/v1/audio/transcriptions", body, headers={"content-type": content_type}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_json_holds_the_text_its_seconds_and_the_model(server: Server) -> None:
    audio = wav(SAID)
    answer = transcribe(server, audio)
    assert answer.text == HEARD
    assert answer.usage.seconds == pytest.approx((len(audio) - 44) / 32000, abs=0.01)
    assert answer.model == "first"


def test_text_is_the_bare_text(server: Server) -> None:
    assert transcribe(server, wav(SAID), response_format="text") == HEARD + "\n"


def test_options_that_change_nothing_here_are_taken(server: Server) -> None:
    answer = transcribe(server, wav(SAID), language="en", prompt="names: Bad Cafe", temperature=0.2)
    assert answer.text == HEARD


def test_a_phrase_that_is_boosted_enough_is_heard_in_anything(server: Server) -> None:
    assert transcribe(server, wav("bad")).text == "bad"
    for name in ("phrases", "keywords"):
        answer = transcribe(server, wav("bad"), extra_body={name: ["Dad:10", "cafe"]})
        assert "dad" in answer.text.split()


@pytest.mark.parametrize(
    ("phrase", "told"),
    [
        ("zoo", "never learned to write o z of 'zoo'"),
        ("bad:1.2.3", "should be a number"),
        ("bad:-1", "above 0"),
        ("?", "no word"),
    ],
)
def test_a_phrase_that_cannot_be_boosted_is_named(server: Server, phrase: str, told: str) -> None:
    with pytest.raises(openai.BadRequestError, match=told) as caught:
        transcribe(server, wav("bad"), extra_body={"phrases": [phrase]})
    assert caught.value.param == "phrases"


def test_compressed_audio_and_other_rates_are_read(server: Server) -> None:
    assert transcribe(server, encode_opus(sung(SAID, seed=5), 48000), "speech.ogg").text == HEARD


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"response_format": "diarized_json"}, "supported: json, text, srt, vtt, verbose_json"),
        ({"response_format": "srt", "stream": True}, "response_format=srt does not come in pieces"),
        ({"timestamp_granularities": ["word"]}, "come with response_format=verbose_json alone"),
        (
            {"timestamp_granularities": ["sentence"], "response_format": "verbose_json"},
            "supported: word, segment",
        ),
    ],
)
def test_what_is_not_supported_is_named(server: Server, options: dict[str, Any], told: str) -> None:
    with pytest.raises(openai.BadRequestError, match=told) as caught:
        transcribe(server, wav("bad"), **options)
    assert caught.value.code == "unsupported_value"
    assert caught.value.param in options


def test_verbose_json_has_segments_and_words_as_asked(server: Server) -> None:
    audio = wav(SAID)
    answer = transcribe(server, audio, response_format="verbose_json")
    assert (answer.text, answer.language, answer.words) == (HEARD, "und", None)
    assert answer.duration == pytest.approx((len(audio) - 44) / 32000, abs=0.01)
    assert [s.text for s in answer.segments] == ["bad cafe", "head ache"]
    assert [s.id for s in answer.segments] == [0, 1]
    assert all(s.start < s.end <= answer.duration for s in answer.segments)
    assert all(-1 < s.avg_logprob <= 0 < s.compression_ratio for s in answer.segments)
    timed = transcribe(server, audio, response_format="verbose_json", timestamp_granularities=["word"])
    assert timed.segments is None
    assert [w.word for w in timed.words] == HEARD.split()
    starts = [w.start for w in timed.words]
    assert starts == sorted(starts)
    assert starts[0] == pytest.approx(0.15, abs=0.1)
    assert all(w.start <= w.end and 0 < w.confidence <= 1 for w in timed.words)
    both = transcribe(
        server, audio, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert (len(both.segments), len(both.words)) == (2, 4)


def test_srt_and_vtt_are_captions(server: Server) -> None:
    srt, vtt = (transcribe(server, wav(SAID), response_format=form) for form in ("srt", "vtt"))
    cue = r"00:00:0\d[,.]\d{3} --> 00:00:0\d[,.]\d{3}"
    assert re.fullmatch(rf"1\n{cue}\nbad cafe\n\n2\n{cue}\nhead ache\n", srt)
    assert re.fullmatch(rf"WEBVTT\n\n{cue}\nbad cafe\n\n{cue}\nhead ache\n", vtt)


@pytest.mark.parametrize("options", [{}, {"response_format": "text"}])
def test_a_stream_of_events_adds_up_to_the_text(server: Server, options: dict[str, Any]) -> None:
    *deltas, done = transcribe(server, wav(f"{SAID}, {SAID}"), stream=True, **options)
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert len(deltas) > 4
    assert done.type == "transcript.text.done"
    assert "".join(event.delta for event in deltas) == done.text == f"{HEARD} {HEARD}"
    assert done.model == "first"


def test_a_stream_of_what_is_no_audio_is_refused_before_it_begins(server: Server) -> None:
    with pytest.raises(openai.BadRequestError, match=r"letter\.wav"):
        transcribe(server, b"this is a letter", "letter.wav", stream=True)


def test_a_stream_that_breaks_off_says_why(start: Callable[..., Server]) -> None:
    server = start(limits={"upload_seconds": 3})
    texts: list[str] = []
    with pytest.raises(openai.APIError, match="longer than 3 s"):
        texts.extend(event.type for event in transcribe(server, wav(f"{SAID}, {SAID}"), stream=True))
    assert set(texts) == {"transcript.text.delta"}


def test_a_client_that_leaves_gives_its_place_back(start: Callable[..., Server]) -> None:
    server = start(limits={"uploads": 1})
    long = wav_bytes(np.tile(sung(SAID, seed=1), 40))
    for stream in (True, False):
        with contextlib.suppress(openai.APITimeoutError):
            impatient = client(server).with_options(timeout=0.5)
            events = impatient.audio.transcriptions.create(model="m", file=long, stream=stream)
            if stream:
                next(iter(events))
                events.close()
        deadline = time.monotonic() + 20
        while transcribe_status(server, wav("bad")) != 200:
            assert time.monotonic() < deadline


def test_the_language_is_told_and_another_one_refused(start: Callable[..., Server]) -> None:
    server = start(language="en")
    for language in ("en", "EN", openai.omit):
        answer = transcribe(server, wav("bad"), response_format="verbose_json", language=language)
        assert answer.language == "en"
    with pytest.raises(openai.BadRequestError, match="this endpoint hears en") as caught:
        transcribe(server, wav("bad"), language="de")
    assert caught.value.param == "language"


def nan_wav() -> bytes:
    data = np.full(16000, np.nan, "<f4").tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, 16000, 64000, 4, 32)
    body = b"WAVE" + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    "audio",
    [
        b"",
        b"this is a letter, not a recording",
        b"#EXTM3U\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        wav("bad")[:44],
        nan_wav(),
    ],
    ids=["empty", "text", "playlist", "concat", "no-samples", "nan"],
)
def test_what_is_not_audio_is_refused_in_a_line_that_names_it(server: Server, audio: bytes) -> None:
    with pytest.raises(openai.BadRequestError, match=r"meeting\.wav") as caught:
        transcribe(server, audio, "meeting.wav")
    assert "\n" not in caught.value.body["message"]  # type: ignore[index]
    assert caught.value.code == "invalid_audio"


def test_an_upload_or_audio_beyond_the_limits_is_413(start: Callable[..., Server]) -> None:
    server = start(limits={"upload_bytes": 200_000, "upload_seconds": 2})
    with pytest.raises(openai.APIStatusError, match="larger than") as caught:
        transcribe(server, bytes(300_000))
    assert caught.value.status_code == 413
    with pytest.raises(openai.APIStatusError, match="longer than 2 s") as caught:
        transcribe(server, wav("bad bad bad bad bad"))
    assert caught.value.status_code == 413
    bomb = encode_opus(np.zeros(16000 * 120, np.float32), 6000)
    assert len(bomb) < 200_000
    assert transcribe_status(server, bomb) == 413
    assert transcribe(server, wav("bad")).text == "bad"


def transcribe_status(server: Server, audio: bytes) -> int:
    try:
        transcribe(server, audio, "bomb.ogg")
    except openai.APIStatusError as error:
        return error.status_code
    return 200


def test_a_request_that_is_no_upload_is_400(server: Server) -> None:
    assert post(server, b"{}", "application/json")[0] == 400
    status, body = post(server, b"--x--\r\n", "multipart/form-data; boundary=x")
    assert status == 400
    assert body["error"]["code"] == "missing_required_parameter"
    assert post(server, b"garbage", "multipart/form-data; boundary=x")[0] == 400
    assert post(server, b"garbage", "multipart/form-data")[0] == 400


def test_uploads_beyond_the_places_are_503_and_the_sdk_may_retry(start: Callable[..., Server]) -> None:
    server = start(limits={"uploads": 1})
    long = wav_bytes(np.tile(sung(SAID, seed=1), 20))
    with ThreadPoolExecutor(4) as threads:
        statuses = [f.result() for f in [threads.submit(transcribe_status, server, long) for _ in range(4)]]
    assert 200 in statuses
    assert set(statuses) <= {200, 503}
    assert 503 in statuses


def test_an_upload_that_stalls_gives_its_place_back(start: Callable[..., Server]) -> None:
    server = start(limits={"upload_idle_seconds": 0.5, "uploads": 1})
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as sender:
        sender.sendall(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: here\r\nContent-Length: 9999999\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        )
        answer = sender.recv(4096).decode()
        assert answer.startswith("HTTP/1.1 408")
        assert "nothing more of the upload came for 0.5 s" in answer + sender.recv(4096).decode()
    assert transcribed(server, pcm16("bad")) == "bad"


def test_a_thousand_phrases_are_taken_and_one_more_is_told(server: Server) -> None:
    words = [f"{a}{b}{c}{d}" for a in "abcdef" for b in "abcdef" for c in "abcdef" for d in "abcdef"]
    file = ("speech.wav", wav("bad cafe"))
    create = client(server).audio.transcriptions.create
    found = create(model="any", file=file, extra_body={"keywords": words[:1000]})
    assert found.text
    with pytest.raises(openai.BadRequestError, match="1000"):
        create(model="any", file=file, extra_body={"keywords": words[:1001]})


def test_models_names_what_is_served(server: Server) -> None:
    (model,) = client(server).models.list().data
    assert model.id == "first"
    assert client(server).models.retrieve("first").object == "model"
    with pytest.raises(openai.NotFoundError, match="other"):
        client(server).models.retrieve("other")


def test_an_unknown_route_is_answered_in_the_same_form(server: Server) -> None:
    with pytest.raises(openai.NotFoundError):
        client(server).embeddings.create(model="m", input="text")


def test_without_a_model_the_answer_is_503_and_says_so(start: Callable[..., Server], tmp_path: Any) -> None:
    server = start(pool=str(tmp_path))
    with pytest.raises(openai.InternalServerError, match="no model is ready yet, the pool is empty"):
        transcribe(server, io.BytesIO(wav("bad")).getvalue())
