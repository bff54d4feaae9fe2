"""Texts as JSON lines: what is written is read again, and what cannot be read is named."""

from pathlib import Path

import pytest

from raysr.corpus.utterance import Utterance
from raysr.decode.words import Word
from raysr.errors import CorpusError
from raysr.evaluate.evaluate import Recognised
from raysr.evaluate.hypotheses import GIVEN, Hypotheses, write_hypotheses
from raysr.evaluate.outcome import Outcome

SPOKEN = [Utterance("u1", "a.wav", 1.0, text="the cat"), Utterance("u2", "b.wav", 2.0, text="sat")]
HEARD = [
    Recognised("u1", "the hat", (Word("the", 0.0, 0.25, 0.9), Word("hat", 0.25, 0.5, 0.5))),
    Recognised("u2", ""),
]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    outcomes = [Outcome.of(name, "greedy", SPOKEN, HEARD) for name in ("clean", "music")]
    write_hypotheses(tmp_path / "texts.jsonl", outcomes)
    texts = Hypotheses.read(tmp_path / "texts.jsonl")
    assert texts.methods("music") == ["greedy"]
    with pytest.raises(CorpusError, match="no texts of set 'far'; it has those of clean, music"):
        texts.methods("far")
    assert texts.of("music", "greedy", ["u2", "u1"]) == HEARD[::-1]


def test_id_and_text_are_enough(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"id": "u1", "text": "the cat"}\n\n{"id": "u2", "hypothesis": "sat"}\n')
    found = Hypotheses.read(path).of("any set", GIVEN, ["u1", "u2"])
    assert [one.text for one in found] == ["the cat", "sat"]


def sure(confidence: str) -> str:
    word = f'{{"text": "a", "start": 0, "end": 1, "confidence": {confidence}}}'
    return f'{{"id": "u1", "text": "a", "words": [{word}]}}\n'


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "holds no texts"),
        ('{"id": "u1"}\n', "line 1: a line should look like"),
        ('{"id": "u1", "text": "a"}\nthe cat\n', "line 2: a line should look like"),
        ('["u1", "text"]\n', "line 1"),
        ('{"id": 1, "text": "a"}\n', "line 1"),
        ('{"id": "u1", "text": "a", "words": [{"text": "a"}]}\n', "line 1: a word should look like"),
        (sure("NaN"), "line 1: a word should look like"),
        (sure("95"), "line 1: a word should look like"),
        ('{"id": "u1", "text": "a", "set": ["x"]}\n', "line 1"),
        ('{"id": "u1", "text": "a", "method": 3}\n', "line 1"),
        ('{"id": "u1", "text": "a"}\n{"id": "u1", "text": "b"}\n', "line 2: utterance 'u1' is there twice"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: str | bytes, told: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CorpusError, match=r"texts\.jsonl") as caught:
        Hypotheses.read(path)
    assert told in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"missing\.jsonl: No such file"):
        Hypotheses.read(tmp_path / "missing.jsonl")


def test_an_utterance_without_a_text_is_no_empty_text(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"id": "u1", "text": "the cat"}\n')
    with pytest.raises(CorpusError, match=r"lacks 1 of 2 utterances of set 'clean'.*the first 'u2'"):
        Hypotheses.read(path).of("clean", GIVEN, ["u1", "u2"])
