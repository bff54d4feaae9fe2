"""How late words are is measured as it is defined, and ``/metrics`` tells what has happened, in Prometheus' form."""

import json
import urllib.request
from collections.abc import Callable

import pytest
from endpoint import Server, messages, pcm16, transcribed
from prometheus_client.parser import text_string_to_metric_families

from raysr.decode.events import Cause
from raysr.decode.words import Word
from raysr.stream.events import Final, Partial
from raysr.stream.latency import Late, Latency

CLOSE = json.dumps({"type": "CloseStream"})


def partial(text: str) -> Partial:
    return Partial("s", 0, "m", 0, 1, "", text)


def final(words: list[tuple[str, float, float]], cause: Cause) -> Final:
    found = tuple(Word(*word, 1.0) for word in words)
    return Final("s", 0, "m", 0, 9, " ".join(word.text for word in found), found, 1.0, cause)


def test_latency_is_what_its_definition_says() -> None:
    latency = Latency()
    for tenth in range(1, 41):  # a packet each tenth of a second, on its way for a twentieth
        latency.arrived(tenth / 10, 100 + tenth / 10 + 0.05)
    assert list(latency.seen([partial("bat")], 101.0)) == []
    assert list(latency.seen([partial("bad cave")], 102.0)) == []
    assert list(latency.seen([partial("bad cafe")], 102.5)) == []
    found = list(latency.seen([final([("bad", 0.5, 0.8), ("cafe", 1.0, 1.5)], "endpoint")], 103.0))
    expected = [
        Late("first_partial", 101.0 - 100.55),
        Late("emission", 102.0 - 100.85),  # "bat" was taken back
        Late("emission", 102.5 - 101.55),
        Late("final", 103.0 - 101.55, "endpoint"),
    ]
    assert [(late.what, late.cause) for late in found] == [(late.what, late.cause) for late in expected]
    assert [late.seconds for late in found] == pytest.approx([late.seconds for late in expected])


def test_a_final_that_was_asked_for_is_as_late_as_its_answer() -> None:
    latency = Latency()
    latency.arrived(1.0, 10.0)
    latency.asked(11.0)
    (late,) = [late for late in latency.seen([final([], "finalize")], 11.25) if late.what == "final"]
    assert late == Late("final", 0.25, "finalize")
    assert list(latency.seen([final([], "stop")], 12.0)) == []


def test_how_far_behind_a_stream_is_is_told_by_when_its_audio_came() -> None:
    latency = Latency()
    assert latency.age(0.0, 5.0) == 0
    latency.arrived(1.0, 10.0)
    latency.arrived(2.0, 10.5)  # twice as fast as speech
    assert latency.age(0.0, 12.0) == 2.0
    assert latency.age(0.5, 12.0) == 2.0
    assert latency.age(1.0, 12.0) == 1.5
    assert latency.age(2.0, 12.0) == 0


def test_arrivals_are_forgotten_when_no_segment_can_hold_them_any_more() -> None:
    latency = Latency()
    for second in range(1000):
        latency.arrived(second, float(second))
        list(latency.seen([], float(second)))  # hours of silence have no finals
    assert len(latency._ends) < 100


def told(server: Server) -> dict[tuple[str, str], float]:
    """Return the samples of ``/metrics`` by name and the value of their tag."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=20) as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=")
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    return {
        (sample.name, next((v for k, v in sample.labels.items() if k != "le"), "")): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_tell_what_has_happened(start: Callable[..., Server]) -> None:
    server = start(limits={"sessions": 1})
    assert told(server)["raysr_model_info", "first"] == 1
    with server.listen(interim_results="true") as socket:
        pcm = pcm16("bad cafe, head ache")
        socket.send(pcm)
        with server.listen() as second:
            messages(second)
        during = told(server)
        socket.send(CLOSE)
        messages(socket)
    found = told(server)
    assert (during["raysr_sessions", ""], found["raysr_sessions", ""]) == (1, 0)
    assert found["raysr_refused_total", "full"] == 1
    assert found["raysr_audio_seconds_total", ""] == pytest.approx(len(pcm) / 32000)
    assert found["raysr_busy_seconds_total", ""] > 0
    assert found["raysr_first_partial_seconds_count", ""] == 2
    assert found["raysr_emission_seconds_count", ""] == 4
    assert found["raysr_final_seconds_count", "endpoint"] == 1
    assert found["raysr_final_seconds_count", "stop"] == 1
    assert found["raysr_batch_size_count", ""] == found["raysr_encoder_step_seconds_count", ""] > 3
    transcribed(server, pcm16("bad"))
    assert told(server)["raysr_batch_size_count", ""] > found["raysr_batch_size_count", ""]
