"""An utterance played as a stream: the text of the masked full forward, and lateness that can be checked by hand."""

import numpy as np
import pytest
import torch
from toy_language import spoken, sung

from raysr.audio.fbank import Fbank
from raysr.decode.events import Final
from raysr.decode.recognise import recognise_masked
from raysr.model.chunking import CHUNKING, Chunking
from raysr.pool import Recogniser
from raysr.stream.events import Event, Partial
from raysr.stream.events import Final as Told
from raysr.stream.playing import PIECE_SECONDS, play
from raysr.stream.stability import Stability
from raysr.stream.streaming_model import StreamingModel

TEXT = "bad cafe, head beg"


@pytest.mark.parametrize("text", ["bad", TEXT])
def test_it_hears_what_the_masked_full_forward_hears(recogniser: Recogniser, text: str) -> None:
    samples = sung(text, seed=3)
    found = play(StreamingModel(recogniser), samples)
    r = recogniser
    features = Fbank(r.config.fbank)(torch.from_numpy(samples))
    events = recognise_masked(r.model, r.tokeniser, r.lm, features, *CHUNKING, r.config.decode)
    finals = [event for event in events if isinstance(event, Final)]
    assert found.text == " ".join(final.text for final in finals) == spoken(text)
    assert found.words == tuple(word for final in finals for word in final.words)


def test_text_is_late_by_its_chunk_and_not_by_the_machine(recogniser: Recogniser) -> None:
    samples = sung(TEXT, seed=3)
    found = {
        size: play(StreamingModel(recogniser, chunking=Chunking(size, -1, 0)), samples).late
        for size in (4, 24)
    }
    emission = {
        size: [late.seconds for late in told if late.what == "emission"] for size, told in found.items()
    }
    assert len(emission[4]) == len(emission[24]) == len(TEXT.split())
    assert np.mean(emission[4]) < np.mean(emission[24])
    assert play(StreamingModel(recogniser, chunking=Chunking(4, -1, 0)), samples).late == found[4]
    pauses = [late.seconds for late in found[4] if late.cause == "endpoint"]
    pause = recogniser.config.decode.endpoint.pause
    assert len(pauses) == 1
    assert pause <= pauses[0] <= pause + 24 * 0.04 + 2 * PIECE_SECONDS


def test_an_empty_recording_says_nothing(recogniser: Recogniser) -> None:
    found = play(StreamingModel(recogniser), np.zeros(0, np.float32))
    assert (found.text, found.words, found.taken_back) == ("", (), 0)


def partial(segment: int, text: str) -> Partial:
    return Partial("s", segment, "m", 0.0, 1.0, "", text)


def final(segment: int, text: str) -> Told:
    return Told("s", segment, "m", 0.0, 1.0, text, (), 0.0, "endpoint")


@pytest.mark.parametrize(
    ("events", "words", "taken_back"),
    [
        ([partial(0, "a"), partial(0, "a b"), final(0, "a b c")], 3, 0),
        ([partial(0, "a b c"), partial(0, "a x"), final(0, "a x")], 2, 2),
        ([partial(0, "a b"), final(0, ""), partial(1, "c"), final(1, "c")], 1, 2),
        ([final(0, "a"), final(1, "b")], 2, 0),
    ],
)
def test_words_that_another_event_changes_are_taken_back(
    events: list[Event], words: int, taken_back: int
) -> None:
    stability = Stability()
    for event in events:
        stability.told(event)
    assert (stability.words, stability.taken_back) == (words, taken_back)
