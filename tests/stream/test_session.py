"""A session gives the text of the masked full forward, however the audio is cut, at any rate, and to its last word."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from toy_language import relative, sung

from raysr.audio.fbank import Fbank
from raysr.audio.resample import resample
from raysr.decode import events as decoded
from raysr.decode.recognise import recognise_masked
from raysr.model.chunking import CHUNKING
from raysr.pool import Recogniser
from raysr.stream.events import Event, Final, Partial, transcript
from raysr.stream.pcm import PcmReader
from raysr.stream.session import Session
from raysr.stream.streaming_model import StreamingModel
from raysr.stream.together import together

SAID = "bad cafe, head ache, beg bad"
HEARD = ["bad cafe", "head ache", "beg bad"]


def session_of(recogniser: Recogniser, version: str = "", **options: Any) -> Session:
    return Session(StreamingModel(recogniser, version), **options)


def masked(recogniser: Recogniser, samples: np.ndarray) -> list[decoded.Final]:
    features = Fbank(recogniser.config.fbank)(torch.from_numpy(samples))
    parts = recogniser.model, recogniser.tokeniser, recogniser.lm
    events = recognise_masked(*parts, features, *CHUNKING, recogniser.config.decode)
    return [event for event in events if isinstance(event, decoded.Final)]


def finals(events: list[Event]) -> list[Final]:
    return [event for event in events if isinstance(event, Final)]


def streamed(session: Session, samples: np.ndarray, cuts: list[int] | None = None) -> list[Event]:
    cuts = sorted(cuts) if cuts is not None else list(range(0, len(samples), 1600))
    events: list[Event] = []
    for first, last in zip([0, *cuts], [*cuts, len(samples)], strict=True):
        events += session.push(samples[first:last])
    return events + session.finish()


def steps(session: Session, samples: np.ndarray) -> int:
    """Push samples and return how many steps of the encoder that takes."""
    taken: list[int] = []
    together([session.push_task(samples)], lambda size, seconds: taken.append(size))
    return len(taken)


def same(found: list[Final], expected: list[decoded.Final]) -> None:
    assert [(f.text, f.cause, f.segment) for f in found] == [(e.text, e.cause, e.segment) for e in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.start, ours.end) == pytest.approx((theirs.start, theirs.end))
        times = [(word.text, word.start, word.end) for word in theirs.words]
        assert [(word.text, word.start, word.end) for word in ours.words] == times
        assert ours.confidence == pytest.approx(theirs.confidence, abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_cut_gives_the_text_of_the_masked_full_forward(
    recogniser: Recogniser, data: st.DataObject
) -> None:
    samples = sung(SAID, seed=7)
    cuts = data.draw(st.lists(st.integers(0, len(samples)), max_size=40))
    found = finals(streamed(session_of(recogniser), samples, cuts))
    assert [final.text for final in found] == HEARD
    same(found, masked(recogniser, samples))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_cut_of_the_bytes_at_any_rate_gives_the_same_events(
    recogniser: Recogniser, data: st.DataObject
) -> None:
    rate = data.draw(st.sampled_from([8000, 22050, 44100, 48000]))
    raw = (sung("gab face, hag", rate, seed=2) * 32768).astype("<i2").tobytes()
    whole = PcmReader("linear16").push(raw)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=25)))
    reader, session, events = PcmReader("linear16"), session_of(recogniser, rate=rate), []
    for first, last in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        events += session.push(reader.push(raw[first:last]))
    same(finals(events + session.finish()), masked(recogniser, resample(whole, rate, 16000)))


@settings(max_examples=25, deadline=None)
@given(end=st.integers(0, 90_000))
def test_a_stop_anywhere_brings_the_text_of_what_was_sent(recogniser: Recogniser, end: int) -> None:
    samples = sung(SAID, seed=7)[:end]
    events = streamed(session_of(recogniser), samples)
    assert isinstance(events[-1], Final)
    assert events[-1].cause == "stop"
    assert transcript(events) == " ".join(final.text for final in masked(recogniser, samples))


@settings(max_examples=25, deadline=None)
@given(pieces=st.lists(st.integers(1, 9000), max_size=8))
def test_it_knows_how_much_audio_the_next_step_takes(recogniser: Recogniser, pieces: list[int]) -> None:
    session = session_of(recogniser)
    for piece in pieces:
        steps(session, np.zeros(piece, np.float32))
    due = round(session.due * 16000)
    assert due > 0
    assert steps(session, np.zeros(due - 1, np.float32)) == 0
    assert steps(session, np.zeros(1, np.float32)) == 1


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_what_resampling_holds_back_takes_little_more(recogniser: Recogniser, rate: int) -> None:
    session = session_of(recogniser, rate=rate)
    for _ in range(5):
        pushes = 1
        while not steps(session, np.zeros(max(1, round(session.due * rate)), np.float32)):
            pushes += 1
        assert pushes <= 3


def test_captions_are_stable_where_they_say_so(recogniser: Recogniser) -> None:
    stable, segment, shown = "", 0, 0
    for event in streamed(session_of(recogniser, "m", session_id="s"), sung(SAID, seed=7)):
        assert (event.session, event.model) == ("s", "m")
        assert event.segment == segment
        assert event.text.startswith(stable)
        if isinstance(event, Partial):
            stable, shown = event.stable, shown + 1
        else:
            stable, segment = "", segment + 1
    assert shown > 4
    assert segment == len(HEARD)


def test_finalize_brings_what_was_said_and_the_session_goes_on(recogniser: Recogniser) -> None:
    session = session_of(recogniser)
    first, second = sung("bad cafe", seed=1), sung("head ache", seed=2)
    events = session.push(first) + session.finalize()
    assert [(f.text, f.cause) for f in finals(events)] == [("bad cafe", "finalize")]
    silent = session.finalize()
    assert [(f.text, f.cause) for f in finals(silent)] == [("", "finalize")]
    rest = finals(session.push(second) + session.finish())
    assert [(f.text, f.cause, f.segment) for f in rest] == [("head ache", "stop", 2)]
    assert rest[0].words[0].start == pytest.approx(len(first) / 16000 + 0.15, abs=0.1)


def test_a_session_without_audio_still_ends_with_a_final(recogniser: Recogniser) -> None:
    (only,) = session_of(recogniser).finish()
    assert isinstance(only, Final)
    assert (only.text, only.words, only.cause) == ("", (), "stop")


class Watched(Session):
    """A session that notes which model begins to hear at which sample."""

    def __init__(self, recogniser: Recogniser, version: str) -> None:
        self.begins: list[tuple[str, int]] = []
        super().__init__(StreamingModel(recogniser, version))

    def _begin(self, first: int) -> None:
        self.begins.append((self.version, first))
        super()._begin(first)


@settings(max_examples=15, deadline=None)
@given(at=st.integers(0, 100), packet=st.sampled_from([400, 1600, 8000, 50_000]))
@example(at=1, packet=50_000)
def test_a_newer_model_takes_over_between_segments(recogniser: Recogniser, at: int, packet: int) -> None:
    newer = relative(recogniser)
    model = StreamingModel(newer, "new")
    samples = sung(SAID, seed=7)
    session, events = Watched(recogniser, version="old"), []
    for number, first in enumerate(range(0, len(samples), packet)):
        if number * packet >= at * len(samples) / 100:
            session.adopt(model)
        events += session.push(samples[first : first + packet])
    found = finals(events + session.finish())
    assert [final.text for final in found] == HEARD
    assert [final.segment for final in found] == [0, 1, 2]
    versions = [final.model for final in found]
    assert versions == sorted(versions, reverse=True)
    if packet < 8000 and at < 70:
        assert versions[-1] == "new"
    # Every final of the newer model is what that model makes of the audio from where it came in.
    its = [final for final in found if final.model == "new"]
    if its:
        begin = next(first for version, first in session.begins if version == "new")
        alone = masked(newer, samples[begin:])
        assert [f.text for f in its] == [f.text for f in alone]
        assert [f.start for f in its] == pytest.approx([begin / 16000 + f.start for f in alone])
        assert [f.confidence for f in its] == pytest.approx([f.confidence for f in alone], abs=1e-5)


def test_a_newer_model_comes_at_once_while_nobody_speaks(recogniser: Recogniser) -> None:
    session = session_of(recogniser, "old")
    noise = np.random.default_rng(0).normal(0, 0.002, 32000).astype(np.float32)
    session.push(noise)
    session.adopt(StreamingModel(relative(recogniser), "new"))
    session.push(noise[:1600])
    assert session.version == "new"


@pytest.mark.parametrize("end", [8000, 20_000, 33_000])
def test_a_refresh_ends_what_is_open_and_the_newer_model_hears_the_rest(
    recogniser: Recogniser, end: int
) -> None:
    newer = StreamingModel(relative(recogniser), "new")
    samples = sung("bad cafe", seed=7)
    session = session_of(recogniser, "old")
    events = session.push(samples[:end]) + session.refresh()
    assert session.version == "old"
    session.adopt(newer)
    events += session.refresh()
    assert session.version == "new"
    assert all(final.cause == "endpoint" for final in finals(events))
    rest = session.push(samples[end:]) + session.push(sung(", head", seed=1)) + session.finish()
    assert [final.model for final in finals(rest)] == ["new"] * len(finals(rest))
    assert transcript(events + rest).endswith("head")
    assert transcript(events + rest).replace(" ", "").startswith("bad"[: end // 8000])


def test_memory_does_not_grow_with_the_session(recogniser: Recogniser) -> None:
    session = session_of(recogniser)
    samples = sung(SAID, seed=7)
    for _ in range(3):
        session.push(samples)
        assert len(session._recent) <= 2.5 * 16000
