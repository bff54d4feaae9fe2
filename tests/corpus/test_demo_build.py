"""Building: engines speak as asked, and a small corpus has the form of the one that ships."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from raysr.audio.mix import active_power
from raysr.corpus.demo import demo_corpus, voices
from raysr.errors import CorpusError

pytest.importorskip("espeakng_loader", reason="needs raysr[voices]")
from raysr.corpus.demo import build
from raysr.corpus.synthesis.engines import Espeak, Line
from raysr.corpus.synthesis.speakers import Speakers, levelled, trimmed

ALEX = voices.Voice("espeak", "en-us+Alex")


@pytest.fixture(scope="module")
def espeak():
    return Espeak()


def spoken(espeak, voice, rate=165.0):
    return next(espeak.speak([Line("the meeting is in the kitchen", voice, rate)]))


def test_a_faster_rate_is_shorter(espeak):
    slow, fast = (trimmed(spoken(espeak, ALEX, rate)) for rate in (130, 190))
    assert len(fast) < 0.8 * len(slow)


def test_every_build_hears_the_same_breath():
    breathy = replace(ALEX, name="en-us+f2")
    lines = [Line(text, breathy, 165) for text in ("good morning everyone", "that was very helpful")]
    with Speakers() as one, Speakers() as other:
        for once, again in zip(one.speak(lines), other.speak(lines), strict=True):
            assert np.array_equal(once, again)


def test_variants_are_different_voices(espeak):
    assert len(spoken(espeak, ALEX)) != len(spoken(espeak, replace(ALEX, name="en-us+f3")))


@pytest.mark.parametrize("name", ["en-us+nobody", "xx-nowhere"])
def test_an_unknown_voice_is_refused(espeak, name):
    with pytest.raises(CorpusError, match="has no voice"):
        spoken(espeak, replace(ALEX, name=name))


def test_every_voice_in_the_tables_is_one_of_its_own():
    tables = (voices.LABELLED, voices.UNLABELLED, voices.DEV, voices.TEST, voices.ENGINE)
    speakers = [voice.speaker for table in tables for voice in table]
    assert len(set(speakers)) == len(speakers)
    variants = [
        {v.name.partition("+")[2] for v in table if v.engine == "espeak"}
        for table in (voices.LABELLED + voices.UNLABELLED, voices.DEV, voices.TEST)
    ]
    assert not variants[0] & variants[1]
    assert not variants[0] & variants[2]
    assert not variants[1] & variants[2]


def test_speech_is_trimmed_and_levelled():
    silence, noise = np.zeros(8000, np.float32), np.random.default_rng(0).uniform(-0.1, 0.1, 16000)
    samples = levelled(trimmed(np.concatenate([silence, noise, silence])), -26)
    assert len(samples) == pytest.approx(16000 * 1.24, abs=40)
    assert 10 * np.log10(active_power(samples)) == pytest.approx(-26, abs=0.1)


@pytest.mark.skipif(not (shutil.which("flite") and shutil.which("festival")), reason="needs flite, festival")
def test_a_small_build_has_the_form_of_the_whole(tmp_path):
    build.build(tmp_path, scale=0.02)
    corpus = demo_corpus(tmp_path)
    assert len(corpus.labelled) == 6
    assert len(corpus.truth) == len(corpus.unlabelled) == 24
    assert set(corpus.dev) == {"clean", "music"}
    assert set(corpus.tests) == {"clean", "music", "engine"}
