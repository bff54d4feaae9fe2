"""The live socket gives the text of the masked full forward, however bytes are cut, and ends every stream in words."""

import contextlib
import io
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import av
import numpy as np
import openai
import pytest
import torch
from deepgram import DeepgramClient
from deepgram.core.events import EventType
from deepgram.environment import DeepgramClientEnvironment
from deepgram.listen.v1.types import (
    ListenV1Metadata,
    ListenV1Results,
    ListenV1SpeechStarted,
    ListenV1UtteranceEnd,
)
from endpoint import Server, messages, pcm16, said, wav
from toy_language import silence, sung
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from raysr.audio.fbank import Fbank
from raysr.decode.events import Final
from raysr.decode.recognise import recognise_masked
from raysr.model.chunking import CHUNKING
from raysr.pool import Recogniser
from raysr.serving.client import transcribe_http, transcribe_ws
from raysr.stream.together import Task

SAID = "bad cafe, head ache"
HEARD = "bad cafe head ache"
CLOSE = json.dumps({"type": "CloseStream"})


def masked_text(recogniser: Recogniser, pcm: bytes, phrases: Mapping[str, float] | None = None) -> str:
    samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
    features = Fbank(recogniser.config.fbank)(torch.from_numpy(samples))
    parts = recogniser.model, recogniser.tokeniser, recogniser.lm
    events = recognise_masked(*parts, features, *CHUNKING, recogniser.config.decode, phrases)
    return " ".join(event.text for event in events if isinstance(event, Final))


def stream(server: Server, pieces: list[bytes | str], **query: Any) -> tuple[list[dict[str, Any]], int]:
    """Send everything, read everything; return the messages and the code the server closed with."""
    with server.listen(**query) as socket:
        with contextlib.suppress(ConnectionClosed):
            for piece in pieces:
                socket.send(piece)
        found = messages(socket)
        return found, socket.close_code or 0


@pytest.mark.parametrize("seed", range(6))
def test_any_cut_of_the_bytes_gives_the_text_of_the_masked_full_forward(
    server: Server, recogniser: Recogniser, seed: int
) -> None:
    pcm = pcm16(SAID, seed=seed)
    generator = np.random.default_rng(seed)
    cuts = sorted(generator.integers(0, len(pcm), [3, 40, 400][seed % 3]).tolist())
    pieces: list[bytes | str] = [pcm[a:b] for a, b in zip([0, *cuts], [*cuts, len(pcm)], strict=True)]
    found, code = stream(server, [*pieces, CLOSE])
    assert said(found) == masked_text(recogniser, pcm) == HEARD
    assert code == 1000


def test_a_stop_anywhere_brings_the_last_words(server: Server, recogniser: Recogniser) -> None:
    pcm = pcm16(SAID)
    for end in (0, 1, 799, 8001, len(pcm) // 2, len(pcm) - 1):
        found, code = stream(server, [pcm[:end], CLOSE])
        assert code == 1000
        assert found[-1]["type"] == "Metadata"
        assert found[-2]["is_final"]
        assert said(found) == masked_text(recogniser, pcm[: end - end % 2])


def test_results_carry_what_the_protocol_asks_for(server: Server) -> None:
    found, _ = stream(server, [pcm16(SAID), CLOSE], interim_results="true")
    interims = [m for m in found if m["type"] == "Results" and not m["is_final"]]
    first, second = [m for m in found if m.get("is_final")]
    assert interims
    for message in interims:
        assert (
            message["raysr"]["stable"] + message["raysr"]["volatile"]
            == (message["channel"]["alternatives"][0]["transcript"])
        )
        (told,) = message["channel"]["alternatives"]
        assert " ".join(word["word"] for word in told["words"]) == told["transcript"].strip()
        assert all(message["start"] <= word["start"] < word["end"] for word in told["words"])
        assert 0 < told["confidence"] <= 1
    assert (first["speech_final"], second["speech_final"]) == (True, False)
    assert first["start"] + first["duration"] == pytest.approx(second["start"])
    best = second["channel"]["alternatives"][0]
    assert [word["word"] for word in best["words"]] == ["head", "ache"]
    assert all(second["start"] <= word["start"] < word["end"] for word in best["words"])
    assert all(0.5 < word["confidence"] <= 1 for word in best["words"])
    assert second["metadata"]["model_info"]["version"] == "first"
    assert found[-1]["duration"] == pytest.approx(len(pcm16(SAID)) / 32000, abs=0.01)


def test_without_interim_results_only_finals_come(server: Server) -> None:
    found, _ = stream(server, [pcm16(SAID), CLOSE])
    assert all(m["is_final"] for m in found if m["type"] == "Results")


@pytest.mark.parametrize(
    ("encoding", "rate", "channels"), [("linear16", 48000, 2), ("linear32", 22050, 1), ("mulaw", 16000, 1)]
)
def test_raw_audio_of_other_kinds(server: Server, encoding: str, rate: int, channels: int) -> None:
    samples = np.repeat(sung(SAID, rate, seed=5), channels)
    if encoding == "linear32":
        raw = samples.astype("<f4").tobytes()
    elif encoding == "linear16":
        raw = (samples * 32768).astype("<i2").tobytes()
    else:
        magnitude = np.log1p(255 * np.abs(samples)) / np.log(256) * 127
        raw = (~np.where(samples < 0, magnitude + 128, magnitude).astype(np.uint8)).tobytes()
    found, _ = stream(server, [raw, CLOSE], encoding=encoding, sample_rate=rate, channels=channels)
    assert said(found) == HEARD


def test_finalize_brings_a_final_at_once_and_the_stream_goes_on(server: Server) -> None:
    with server.listen() as socket:
        socket.send(pcm16("bad cafe"))
        socket.send(json.dumps({"type": "Finalize"}))
        message = json.loads(socket.recv(timeout=20))
        assert message["from_finalize"]
        assert said([message]) == "bad cafe"
        socket.send(pcm16("head"))
        socket.send(CLOSE)
        assert said(messages(socket)) == "head"


def test_speech_and_silence_are_told_when_asked(server: Server) -> None:
    audio = pcm16("bad") + (silence(3.0) * 32768).astype("<i2").tobytes()
    found, _ = stream(
        server, [audio, CLOSE], vad_events="true", interim_results="true", utterance_end_ms=1000
    )
    kinds = [m["type"] for m in found]
    assert kinds.index("SpeechStarted") < kinds.index("Results") < kinds.index("UtteranceEnd")
    final = next(m for m in found if m.get("is_final"))
    end = next(m for m in found if m["type"] == "UtteranceEnd")
    assert end["last_word_end"] == final["channel"]["alternatives"][0]["words"][-1]["end"]


def test_the_deepgram_sdk_streams_and_closes(server: Server) -> None:
    socket_url = server.url.replace("http", "ws")
    environment = DeepgramClientEnvironment(
        base=server.url, production=socket_url, agent=socket_url, agent_rest=server.url
    )
    client = DeepgramClient(api_key="any", environment=environment)
    found: list[Any] = []
    with client.listen.v1.connect(
        model="nova-3",
        encoding="linear16",
        sample_rate=16000,
        interim_results=True,
        vad_events=True,
        utterance_end_ms=1000,
        punctuate=True,
        smart_format=True,
        keyterm=["cafe", "ache"],
    ) as connection:
        connection.on(EventType.MESSAGE, found.append)
        listener = threading.Thread(target=connection.start_listening)
        listener.start()
        pcm = pcm16(SAID) + (silence(2.0) * 32768).astype("<i2").tobytes()
        for first in range(0, len(pcm), 3200):
            connection.send_media(pcm[first : first + 3200])
        connection.send_keep_alive()
        connection.send_finalize()
        connection.send_close_stream()
        listener.join(30)
        assert not listener.is_alive()
    kinds = {type(message) for message in found}
    assert kinds == {ListenV1Results, ListenV1SpeechStarted, ListenV1UtteranceEnd, ListenV1Metadata}
    finals = [m for m in found if isinstance(m, ListenV1Results) and m.is_final]
    assert " ".join(m.channel.alternatives[0].transcript for m in finals).split() == HEARD.split()
    assert any(m.from_finalize for m in finals)
    assert isinstance(found[-1], ListenV1Metadata)


def test_our_own_client_gives_one_text_over_both_protocols(server: Server, tmp_path: Any) -> None:
    file = tmp_path / "speech.wav"
    file.write_bytes(wav(SAID))
    events: list[dict[str, Any]] = []
    begin = time.monotonic()
    live = transcribe_ws(server.url, file, pace=0.3, on_event=events.append)
    assert time.monotonic() - begin > 0.3 * events[-1]["duration"]
    assert live == transcribe_http(server.url, file)
    assert (live.text, live.model) == (HEARD, "first")


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({"encoding": "g729"}, "encoding 'g729' is not supported; supported: alaw"),
        ({"sample_rate": 1}, "sample_rate should be between"),
        ({"sample_rate": "fast"}, "sample_rate should be a whole number, not 'fast'"),
        ({"channels": 0}, "channels should be between"),
        ({"interim_results": "perhaps"}, "interim_results should be true or false"),
        ({"keyterm": "zoo"}, "never learned to write o z of 'zoo'"),
    ],
)
def test_a_query_that_cannot_be_met_is_answered_and_closed(
    server: Server, query: dict[str, Any], told: str
) -> None:
    (error,), code = stream(server, [], **query)
    assert error["type"] == "Error"
    assert told in error["description"]
    assert code == 1008


@pytest.mark.parametrize("query", [{"keyterm": "dad:10"}, {"keywords": "dad:10"}])
def test_phrases_of_a_query_are_boosted_as_in_the_masked_full_forward(
    server: Server, recogniser: Recogniser, query: dict[str, Any]
) -> None:
    pcm = pcm16("bad")
    found, _ = stream(server, [pcm, CLOSE], **query)
    assert said(found) == masked_text(recogniser, pcm, {"dad": 10.0}) != masked_text(recogniser, pcm)


def contained(server: Server, **query: str) -> ClientConnection:
    """Open the live socket for audio in a container."""
    pairs = {"model": "nova-3", **query}
    return connect(f"{server.url.replace('http', 'ws')}/v1/listen?{urlencode(pairs)}", close_timeout=5)


@pytest.mark.parametrize("muxer", ["webm", "ogg"])
def test_audio_in_a_container_is_heard_as_it_comes(
    server: Server, recogniser: Recogniser, muxer: str
) -> None:
    data = in_opus(sung(SAID, 48000, seed=5), muxer)
    pause = round(len(data) * (len(sung("bad cafe")) + 0.4 * 16000) / len(sung(SAID)))
    with contained(server, interim_results="true") as socket:
        for first in range(0, pause, 500):
            socket.send(data[first : min(first + 500, pause)])
        early = [json.loads(socket.recv(timeout=20))]
        assert early[0]["channel"]["alternatives"][0]["transcript"], "before all has come"
        socket.send(json.dumps({"type": "Finalize"}))
        while not early[-1].get("from_finalize"):
            early.append(json.loads(socket.recv(timeout=20)))
        socket.send(data[pause:])
        socket.send(CLOSE)
        found = [*early, *messages(socket)]
    assert said(found) == HEARD
    assert socket.close_code == 1000
    assert found[-1]["duration"] == pytest.approx(len(pcm16(SAID)) / 32000, abs=0.1)


def test_a_container_and_its_file_have_one_text(server: Server) -> None:
    data = in_opus(sung(SAID, 48000, seed=6), "webm")
    with contained(server) as socket:
        socket.send(data)
        socket.send(CLOSE)
        found = messages(socket)
    sdk = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)
    assert said(found) == sdk.audio.transcriptions.create(model="any", file=("speech.webm", data)).text


@pytest.mark.parametrize(
    "data", [b"dear all, " * 10_000, bytes(range(256)) * 400, b"#EXTM3U\nhttp://h/x\n" * 6000]
)
def test_what_is_no_audio_ends_its_stream_alone(server: Server, data: bytes) -> None:
    with contained(server) as bad, server.listen() as good:
        bad.send(data)
        found = messages(bad)  # without a word of its end
        assert (found[-1]["type"], bad.close_code) == ("Error", 1008)
        assert "not audio" in found[-1]["description"]
        good.send(pcm16("bad"))
        good.send(CLOSE)
        assert said(messages(good)) == "bad"


def in_opus(samples: np.ndarray, muxer: str) -> bytes:
    """Return samples at 48 kHz as a browser's recorder would send them."""
    output = io.BytesIO()
    with av.open(output, "w", format=muxer) as container:
        stream = container.add_stream("libopus", rate=48000)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        stream.codec_context.open()
        to_codec = av.AudioResampler(
            stream.codec_context.format.name, "mono", 48000, stream.codec_context.frame_size
        )
        frame = av.AudioFrame.from_ndarray(
            samples[np.newaxis].astype(np.float32), format="fltp", layout="mono"
        )
        frame.rate = 48000
        for piece in [*to_codec.resample(frame), *to_codec.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return output.getvalue()


@pytest.mark.parametrize(
    ("message", "code", "told"),
    [
        (b"\0" * 5000, 1009, "a message may hold 4096 bytes"),
        ("hello", 1003, "should be JSON with a 'type'"),
        ('{"type": "Dance"}', 1003, "type Dance is not understood"),
        ("[" * 4000, 1003, "should be JSON"),
        ('{"type": ["Finalize"]}', 1003, "is not understood"),
        (np.array([np.nan], "<f4").tobytes(), 1008, "not numbers"),
    ],
    ids=["long", "text", "unknown", "deep", "odd", "nan"],
)
def test_a_message_that_may_not_come_brings_the_finals_an_error_and_a_close(
    start: Callable[..., Server], message: bytes | str, code: int, told: str
) -> None:
    server = start(limits={"message_bytes": 4096})
    audio = sung("bad cafe", seed=5).astype("<f4").tobytes()
    pieces = [audio[first : first + 4096] for first in range(0, len(audio), 4096)]
    found, closed = stream(server, [*pieces, message], encoding="linear32")
    assert said(found) == "bad cafe"
    assert found[-1]["type"] == "Error"
    assert told in found[-1]["description"]
    assert closed == code


def test_a_silent_client_is_closed_and_one_that_keeps_alive_is_not(start: Callable[..., Server]) -> None:
    server = start(limits={"idle_seconds": 0.4})
    with server.listen() as socket:
        for _ in range(4):
            time.sleep(0.2)
            socket.send(json.dumps({"type": "KeepAlive"}))
        begin = time.monotonic()
        found = messages(socket)
        assert 0.3 < time.monotonic() - begin < 5
    assert [m["type"] for m in found] == ["Results", "Error"]
    assert socket.close_code == 1011


def test_a_client_that_waits_for_us_is_not_idle(start: Callable[..., Server]) -> None:
    server, busy = start(limits={"idle_seconds": 0.5}), threading.Event()

    def round_of_others() -> Task:
        busy.wait(20)
        yield from ()
        return []

    with server.listen() as socket:
        assert server.engine is not None
        server.engine.submit(round_of_others())
        socket.send(pcm16("bad cafe"))
        socket.send(json.dumps({"type": "Finalize"}))
        with pytest.raises(TimeoutError):
            socket.recv(timeout=1.5)
        busy.set()
        found = messages(socket)
    assert said(found) == "bad cafe"
    assert [m.get("from_finalize") for m in found if m["type"] == "Results"][-2:] == [True, False]
    assert (socket.close_code, socket.close_reason) == (1011, "nothing came for 0.5 s"), (
        "once it was answered"
    )


def test_a_stream_has_a_longest_length(start: Callable[..., Server]) -> None:
    server = start(limits={"session_seconds": 2})
    found, code = stream(server, [pcm16("bad cafe")] * 5)
    assert code == 1008
    assert "2 s of audio" in found[-1]["description"]


def test_the_next_stream_of_a_full_house_is_refused_in_words(start: Callable[..., Server]) -> None:
    server = start(limits={"sessions": 2})
    with server.listen() as one, server.listen() as two:
        one.send(pcm16("bad"))
        begin = time.monotonic()
        (error,), code = stream(server, [])
        assert time.monotonic() - begin < 1
        assert error["variant"] == "TOO_MANY_SESSIONS"
        assert code == 1013
        for socket in (one, two):
            socket.send(CLOSE)
        assert [said(messages(socket)) for socket in (one, two)] == ["bad", ""]
    assert stream(server, [pcm16("bad"), CLOSE])[1] == 1000


def test_a_client_that_leaves_frees_its_place(start: Callable[..., Server]) -> None:
    server = start(limits={"sessions": 1})
    for length in (None, 999):
        with server.listen() as socket:
            socket.send(pcm16("bad")[:length])
            socket.socket.close()
        # the place is free only once the server has noticed; until then a stream is refused
        deadline = time.monotonic() + 10
        while (outcome := stream(server, [pcm16("bad"), CLOSE]))[1] != 1000:
            assert time.monotonic() < deadline
        assert said(outcome[0]) == "bad"


def test_without_a_model_a_stream_is_told_to_come_again(start: Callable[..., Server], tmp_path: Any) -> None:
    (error,), code = stream(start(pool=str(tmp_path)), [])
    assert "no model is ready yet" in error["description"]
    assert code == 1013


def test_many_streams_at_once_hear_each_their_own(server: Server) -> None:
    texts = ["bad cafe", "head ache", "beg", "gab face hag", "dead cab"]
    outcomes: dict[str, str] = {}

    def one(text: str) -> None:
        outcomes[text] = said(stream(server, [pcm16(text), CLOSE])[0])

    threads = [threading.Thread(target=one, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes == {text: text for text in texts}
