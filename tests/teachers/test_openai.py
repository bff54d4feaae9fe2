"""An endpoint as teacher, over real sockets: one that misbehaves in every way that servers do."""

import contextlib
import http.server
import io
import json
import logging
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from math import inf
from typing import Any

import numpy as np
import pytest

from raysr.audio.encode import flac_bytes, wav_bytes
from raysr.audio.files import decode
from raysr.config import Spec
from raysr.errors import ConfigError
from raysr.teachers.base import TEACHERS, TeacherContext, patience_of
from raysr.teachers.openai_answer import read_answer
from raysr.teachers.patience import backoff, retry_after

KEY = "sk-very-secret-0123456789"
SPEECH = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
Reply = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers the n-th request with the n-th reply, the last for ever after, and remembers what was asked."""

    server: "Endpoint"
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.server.lock:
            number = len(self.server.requests)
            self.server.requests.append((time.monotonic(), self.path, dict(self.headers), body))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.replies[min(number, len(self.server.replies) - 1)](self)

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Endpoint(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *replies: Reply) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies = replies
        self.lock = threading.Lock()
        self.requests: list[tuple[float, str, dict[str, str], bytes]] = []


@pytest.fixture
def endpoint() -> Iterator[Callable[..., Endpoint]]:
    """Start endpoints that end with the test."""
    running: list[Endpoint] = []

    def start(*replies: Reply) -> Endpoint:
        running.append(Endpoint(*replies))
        threading.Thread(target=running[-1].serve_forever, args=(0.01,), daemon=True).start()
        return running[-1]

    yield start
    for one in running:
        one.shutdown()
        one.server_close()


def says(text: str = "Hello, 2 of you!", status: int = 200, **more: Any) -> Reply:
    return lambda handler: handler.answer(json.dumps({"text": text, **more}).encode(), status)


def fails(status: int, message: str = "no", **headers: str) -> Reply:
    body = json.dumps({"error": {"message": message, "type": "x"}}).encode()
    return lambda handler: handler.answer(body, status, **headers)


def raw(body: bytes) -> Reply:
    return lambda handler: handler.answer(body)


def hangs(handler: Handler) -> None:
    time.sleep(3)


def drips(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "1000000")
    handler.end_headers()
    for _ in range(60):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def hangs_up(handler: Handler) -> None:
    handler.connection.close()


def teacher(server: Endpoint | str, **options: Any) -> Any:
    url = server if isinstance(server, str) else f"http://127.0.0.1:{server.server_port}/v1"
    patience = {"backoff": 0.01, "timeout": 0.5, "longest_wait": 0.4, "retries": 2, "probe": False}
    spec = Spec(kind="openai", base_url=url, model="whisper-1", **patience | options)
    return TEACHERS.build(spec, TeacherContext())


def fields(body: bytes) -> dict[str, bytes]:
    """Read a multipart body: names and contents."""
    boundary = body.partition(b"\r\n")[0]
    parts = [part.partition(b"\r\n\r\n") for part in body.split(boundary)[1:-1]]
    return {
        head.partition(b'name="')[2].partition(b'"')[0].decode(): content.removesuffix(b"\r\n")
        for head, _, content in parts
    }


@pytest.mark.parametrize("audio", ["flac", "wav"])
def test_what_is_asked_and_what_is_sent(
    audio: str, endpoint: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    server = endpoint(says())
    options = {"language": "en", "prompt": "Zoë, Æsa", "temperature": 0.0, "api_key_env": "MY_KEY"}
    [output] = teacher(server, audio=audio, **options).transcribe([SPEECH])
    assert output.text == "hello two of you"
    [(_, path, headers, body)] = server.requests
    assert path == "/v1/audio/transcriptions"
    assert {name.lower(): value for name, value in headers.items()}["authorization"] == f"Bearer {KEY}"
    sent = fields(body)
    assert sent["prompt"].decode() == "Zoë, Æsa"
    assert {k: sent[k] for k in ("model", "language", "temperature", "response_format")} == {
        "model": b"whisper-1",
        "language": b"en",
        "temperature": b"0.0",
        "response_format": b"verbose_json",
    }
    heard = decode(io.BytesIO(sent["file"]))
    np.testing.assert_allclose(heard, SPEECH, atol=1 / 32768)
    assert len(heard) == len(SPEECH)


@pytest.mark.parametrize("samples", [1, 160, 4096, 16001])
def test_flac_is_sixteen_bits_and_loses_none(samples: int) -> None:
    wave = np.random.default_rng(1).uniform(-1.2, 1.2, samples).astype(np.float32)
    assert np.array_equal(decode(flac_bytes(wave)), decode(wav_bytes(wave)))


def test_scores_of_verbose_json_are_taken(endpoint: Callable[..., Endpoint]) -> None:
    segments = [
        {"text": " We met", "avg_logprob": -0.2, "tokens": [1, 2, 3]},
        {"text": " at 10.", "avg_logprob": -1.0, "tokens": [4]},
    ]
    words = [
        {"word": " We", "probability": 0.9},
        {"word": " met", "probability": 0.8},
        {"word": " at", "probability": 0.7},
        {"word": " 10.", "probability": 0.6},
    ]
    server = endpoint(says("We met at 10.", segments=segments, words=words))
    [output] = teacher(server).transcribe([SPEECH])
    assert output.text == "we met at ten"
    assert output.normalised_score == pytest.approx((3 * -0.2 + -1.0) / 4)
    assert output.confidences == (0.9, 0.8, 0.7, 0.6)


def test_token_log_probabilities_are_joined_to_words(endpoint: Callable[..., Endpoint]) -> None:
    tokens = [
        {"token": t, "logprob": p} for t, p in [("Be", -0.1), ("ck", -0.3), ("ett", -0.2), (" tried", -0.5)]
    ]
    server = endpoint(says("Beckett tried", logprobs=tokens))
    [output] = teacher(server, logprobs=True).transcribe([SPEECH])
    assert fields(server.requests[0][3])["include[]"] == b"logprobs"
    assert output.confidences == pytest.approx((np.exp(-0.2), np.exp(-0.5)))
    assert output.normalised_score == pytest.approx(-1.1 / 4)


@pytest.mark.parametrize(
    "more",
    [
        {"segments": "none", "words": 3},
        {"segments": [{"avg_logprob": "low"}, None, {"avg_logprob": float("nan")}], "words": [{"word": 1}]},
        {"words": [{"word": "other", "probability": 0.5}], "logprobs": [{"token": "x"}]},
    ],
)
def test_scores_that_are_none_are_left_out(more: dict[str, Any]) -> None:
    output = read_answer(json.dumps({"text": "yes", **more}).encode()).output
    assert (output.text, output.normalised_score, output.confidences) == ("yes", None, ())


@pytest.mark.parametrize(
    "trouble",
    [
        fails(429),
        fails(500),
        fails(503, retry_after="0"),
        raw(b"<html>"),
        raw(b"[" * 100_000),
        hangs,
        drips,
        hangs_up,
    ],
    ids=["busy", "broken", "unavailable", "garbage", "deep", "hangs", "drips", "hangs up"],
)
def test_trouble_that_passes_costs_nothing(trouble: Reply, endpoint: Callable[..., Endpoint]) -> None:
    server = endpoint(trouble, trouble, says())
    [output] = teacher(server).transcribe([SPEECH])
    assert (output.text, output.error) == ("hello two of you", None)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("trouble", "error", "tries"),
    [
        (fails(500, "out of\nmemory"), "EndpointError: status 500: out of memory", 3),
        (fails(400, "too short"), "EndpointError: status 400: too short", 1),
        (fails(401, "no such key"), "EndpointError: status 401: no such key", 1),
        (fails(302, location="http://elsewhere/"), "EndpointError: status 302: no", 1),
        (raw(b"<html>"), "not a transcription", 3),
        (raw(b'{"txt": "a"}'), "an answer without a text", 3),
        (raw(b'{"text": null}'), "an answer without a text", 3),
        (hangs, "no answer within the timeout", 3),
    ],
)
def test_trouble_that_stays_costs_its_utterance_alone(
    trouble: Reply, error: str, tries: int, endpoint: Callable[..., Endpoint]
) -> None:
    server = endpoint(*[trouble] * tries, says())
    outputs = teacher(server, concurrency=1).transcribe([SPEECH, SPEECH])
    assert error in (outputs[0].error or "")
    assert "\n" not in (outputs[0].error or "")
    assert (outputs[1].text, outputs[1].error) == ("hello two of you", None)
    assert len(server.requests) == tries + 1


def test_an_endpoint_that_has_no_scores_is_asked_once_for_them(endpoint: Callable[..., Endpoint]) -> None:
    refusal = fails(400, "response_format 'verbose_json' is not supported")
    server = endpoint(refusal, says())
    outputs = teacher(server, retries=0, concurrency=1).transcribe([SPEECH] * 3)
    assert all(output.error is None for output in outputs)
    formats = [fields(body)["response_format"] for _, _, _, body in server.requests]
    assert formats == [b"verbose_json", b"json", b"json", b"json"]
    server = endpoint(refusal)
    [output] = teacher(server, response_format="verbose_json").transcribe([SPEECH])
    assert "not supported" in (output.error or "")


def test_retry_after_holds_all_requests_back(endpoint: Callable[..., Endpoint]) -> None:
    server = endpoint(fails(429, retry_after="1"), says())
    teacher(server, concurrency=1).transcribe([SPEECH])
    (first, *_), (second, *_) = server.requests
    assert 0.4 <= second - first < 1  # longest_wait, and not the second that it asks for


def test_retry_after_holds_back_requests_that_have_their_turn(endpoint: Callable[..., Endpoint]) -> None:
    server = endpoint(fails(429, retry_after="1"), says())
    options = {"concurrency": 4, "requests_per_minute": 300, "longest_wait": 1.0}
    outputs = teacher(server, **options).transcribe([SPEECH] * 4)
    assert all(output.error is None for output in outputs)
    first, *others = sorted(arrived for arrived, *_ in server.requests)
    assert len(others) == 4
    assert others[0] - first >= 1
    assert others[-1] - others[0] >= 3 * 0.2 - 0.05  # the rate holds after it, too


def test_its_patience_is_as_long_as_it_may_take(endpoint: Callable[..., Endpoint]) -> None:
    def late(handler: Handler) -> None:
        time.sleep(0.3)
        drips(handler)

    options = {"timeout": 0.4, "requests_per_minute": 120, "backoff": 0.4, "retries": 1, "probe": False}
    server = endpoint(late)
    url = f"http://127.0.0.1:{server.server_port}/v1"
    spec = Spec(kind="openai", base_url=url, model="m", longest_wait=0.4, **options)  # type: ignore[call-arg]
    asked = TEACHERS.build(spec, TeacherContext())
    started = time.monotonic()
    assert asked.transcribe([SPEECH])[0].error
    assert 2 * 0.4 < time.monotonic() - started < patience_of(spec) == 2 * (0.5 + 2 * 0.4 + 0.4)
    usual = Spec(kind="openai", base_url=url, model="m")  # type: ignore[call-arg]
    assert patience_of(usual) == 6 * (2 * 60 + 60)
    assert patience_of(Spec(kind="moonshine")) == 0


def test_requests_keep_to_their_rate_and_number(endpoint: Callable[..., Endpoint]) -> None:
    at_once: list[int] = []
    busy = threading.Semaphore(100)

    def slowly(handler: Handler) -> None:
        with busy:
            at_once.append(100 - busy._value)
            time.sleep(0.1)
        says()(handler)

    server = endpoint(slowly)
    outputs = teacher(server, concurrency=3).transcribe([SPEECH] * 9)
    assert all(output.text for output in outputs)
    assert max(at_once) == 3
    server = endpoint(says())
    teacher(server, concurrency=4, requests_per_minute=200).transcribe([SPEECH] * 6)
    times = sorted(arrived for arrived, *_ in server.requests)
    assert times[-1] - times[0] >= 4 * 0.3  # a busy machine may let the first one arrive late


def test_outputs_come_in_the_order_of_the_waveforms(endpoint: Callable[..., Endpoint]) -> None:
    def length(handler: Handler) -> None:
        _, _, _, body = handler.server.requests[-1]
        seconds = len(decode(io.BytesIO(fields(body)["file"]))) // 1600
        time.sleep(0.02 * (6 - seconds))
        says("a" * seconds)(handler)

    server = endpoint(length)
    waveforms = [np.zeros(1600 * n, np.float32) for n in (3, 1, 5, 2)]
    asked = teacher(server, concurrency=1)
    assert [len(output.text) for output in asked.transcribe(waveforms)] == [3, 1, 5, 2]
    assert asked.transcribe([np.zeros(100, np.float32)])[0].text == ""
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (
            fails(401, f"Incorrect API key provided: {KEY}"),
            r"status 401: Incorrect API key provided: \*\*\*: set MY_KEY",
        ),
        (fails(403, "no access"), "status 403: no access: the key may not use this model"),
        (fails(404, "no such model"), "status 404: no such model: check base_url and model 'whisper-1'"),
        (fails(503, "later"), "status 503: later"),
        (raw(b"<html>hello</html>"), "not a transcription"),
    ],
)
def test_what_no_utterance_would_survive_is_told_at_the_start(
    trouble: Reply, told: str, endpoint: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with pytest.raises(ConfigError, match=told) as caught:
        teacher(endpoint(trouble), probe=True, api_key_env="MY_KEY")
    assert KEY not in str(caught.value)


def test_an_endpoint_that_is_not_there_is_told_at_the_start() -> None:
    with pytest.raises(
        ConfigError, match=r"teacher 'openai': http://127\.0\.0\.1:9/v1 cannot label: ConnectError"
    ):
        teacher("http://127.0.0.1:9/v1", probe=True)


def test_the_key_is_nowhere_but_in_the_request(
    endpoint: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)

    def echoes(handler: Handler) -> None:
        fails(400, f"bad request {dict(handler.headers)}")(handler)

    caplog.set_level(logging.DEBUG)
    asked = teacher(endpoint(echoes), api_key_env="MY_KEY")
    [output] = asked.transcribe([SPEECH])
    assert "bad request" in (output.error or "")
    for shown in (output.error, caplog.text, str(asked.config), asked.version, asked.name):
        assert KEY not in str(shown)


def test_a_key_that_is_not_set_is_named() -> None:
    with pytest.raises(ConfigError, match="the environment variable NO_SUCH_KEY is not set"):
        teacher("http://127.0.0.1:9/v1", api_key_env="NO_SUCH_KEY")


@pytest.mark.parametrize("key", ["sk-abc\nsk-def", "sk-abc sk-def", "sk-abcé", "sk-abc\x07"])
def test_a_key_that_no_header_can_carry_is_named_and_not_shown(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(ConfigError, match="the environment variable MY_KEY holds no key") as caught:
        teacher("http://127.0.0.1:9/v1", api_key_env="MY_KEY")
    assert "sk-abc" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "api.openai.com/v1",
        "https://me:secret@host/v1",
        "https://host/v1?key=secret",
        "ftp://me:secret@host/v1",
        "https://me:secret@h\u2100st/v1",
        "https://me:secret@[host/v1",
        ["https://me:secret@host/v1"],
    ],
)
def test_a_url_is_checked_before_anything_runs_and_not_shown(url: Any) -> None:
    with pytest.raises(ConfigError, match="base_url") as caught:
        TEACHERS.check(Spec(kind="openai", base_url=url, model="m"))  # type: ignore[call-arg]
    assert "secret" not in str(caught.value)


def test_waits_grow_and_end() -> None:
    for attempt in range(40):
        assert 0.5 * min(8.0, 0.5 * 2.0**attempt) <= backoff(attempt, 0.5, 8.0) <= 8.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("soon", None),
        (None, None),
        ("-1", None),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999", None),
        ("9" * 5000, inf),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds
