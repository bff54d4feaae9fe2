from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.corpus.importers.checks import other_script, script_of, scripts_in_use, too_long
from raysr.corpus.inspect import QUANTILES, inspect
from raysr.corpus.manifest import open_manifest
from raysr.corpus.utterance import Utterance


@given(st.lists(st.floats(0.1, 1e4), min_size=1, max_size=50))
def test_amounts_are_those_of_numpy(seconds: list[float]):
    summary = inspect(open_manifest([Utterance(f"u{n}", "s3://b/a.wav", s) for n, s in enumerate(seconds)]))
    assert summary.utterances == len(seconds)
    assert summary.hours == pytest.approx(sum(seconds) / 3600)
    assert list(summary.durations.values()) == pytest.approx(np.quantile(seconds, QUANTILES))
    assert (summary.counts, summary.with_text) == ({}, 0.0)


def test_what_should_be_mended_is_told(tmp_path: Path, wav):
    audio = str(wav("a.wav", 3.0))
    texts = ["one two", "one three", "four", "да", None, "x" * 200]
    utterances = [
        Utterance(f"u{n}", audio, 3.0, text=text, speaker=f"s{n % 2}", language="en", tags={"room": "big"})
        for n, text in enumerate(texts)
    ]
    utterances += [Utterance("u0", audio, 3.0), Utterance("gone", str(tmp_path / "gone.wav"), 0.0)]
    summary = inspect(open_manifest(utterances))
    assert summary.counts == {
        "duplicate id": 1,
        "no audio": 2,
        "transcript too long": 1,
        "other script": 1,
    }
    assert {(p.kind, p.where) for p in summary.problems} == {
        ("duplicate id", "u0"),
        ("no audio", "gone"),
        ("transcript too long", "u5"),
        ("other script", "u3"),
    }
    assert (summary.speakers, summary.languages, summary.tags) == (2, {"en": 6}, {"room": {"big": 6}})
    assert (summary.with_text, summary.words, summary.vocabulary) == (5 / 8, 7, 6)


def test_rates_and_mixtures_are_counted():
    plain = [
        Utterance(f"u{n}", "s3://b/a.wav", 1.0, sample_rate=rate) for n, rate in enumerate((8000, 16000))
    ]
    mixed = Utterance("m", "s3://b/a.wav", 1.0, mix={"seed": 1})
    summary = inspect(open_manifest([*plain, mixed]))
    assert (summary.sample_rates, summary.mixed) == ({16000: 2, 8000: 1}, 1)


def test_an_empty_manifest_has_nothing(tmp_path: Path):
    assert inspect(open_manifest([])).to_dict()["utterances"] == 0


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("hello", "LATIN"),
        ("café 123", "LATIN"),
        ("привет, world ок", "CYRILLIC"),
        ("これは日本語", "CJK"),
        ("你好", "CJK"),
        ("123 ...", None),
        ("", None),
    ],
)
def test_the_script_is_that_of_most_letters(text: str, script: str | None):
    assert script_of(text) == script


def test_a_corpus_may_be_written_in_two_scripts():
    scripts = scripts_in_use(["hello", "world", "你好", "世界", "привет"])
    assert scripts == {"LATIN", "CJK"}
    assert other_script("ещё", scripts)
    assert other_script("12", scripts) is None


def test_speech_fits_its_audio():
    assert too_long("please try your call again later", 1.8) is None
    assert "40 a second" in str(too_long("a" * 40, 1.0))
