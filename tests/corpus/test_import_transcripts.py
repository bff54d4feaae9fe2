"""Transcripts of imported folders: where they are found, what they are bound to, what is wrong with them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from problems import rows

from raysr.corpus.importers.folder import import_folder
from raysr.corpus.manifest import open_manifest
from raysr.errors import CorpusError

WavFile = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.tsv", "a\tHello there\nsub/b.wav\tIt's 5 o'clock\n"),
        ("t.tsv", "speaker\tpath\tsentence\ns\ta.wav\tHello there\ns\tsub/b\tIt's 5 o'clock\n"),
        ("t.txt", "; a comment\na: Hello there\nsub/b: It's 5 o'clock\n"),
        (
            "t.jsonl",
            '{"audio_filepath": "a.wav", "text": "Hello there"}\n{"id": "b", "text": "It\'s 5 o\'clock"}\n',
        ),
    ],
)
def test_transcripts_are_found_and_normalised(tmp_path: Path, wav: WavFile, name: str, text: str):
    wav("in/a.wav", 1.0)
    wav("in/sub/b.wav", 1.0)
    (tmp_path / name).write_text(text)
    report = import_folder(tmp_path / "in", tmp_path / "out", tmp_path / name)
    assert rows(report) == {}
    one, two = open_manifest(tmp_path / "out")
    assert (one.id, one.text, one.custom["original_text"]) == ("a", "hello there", "Hello there")
    assert (two.id, two.text) == ("sub/b", "it's five o'clock")


def test_transcripts_may_lie_beside_the_audio(tmp_path: Path, wav: WavFile):
    wav("in/a.wav", 1.0)
    wav("in/b.wav", 1.0)
    (tmp_path / "in/a.txt").write_text("Hello\nthere\n")
    report = import_folder(tmp_path / "in", tmp_path / "out")
    assert [utterance.text for utterance in open_manifest(tmp_path / "out")] == ["hello there", None]
    assert (report.utterances, report.with_text, report.ignored) == (2, 1, {".txt": 1})


def test_bad_transcripts_are_a_row_each_with_their_line(tmp_path: Path, wav: WavFile):
    for name in ("a", "b", "c", "d", "e", "long", "cyrillic", "dots"):
        wav(f"in/{name}.wav", 1.0)
    lines = [
        "a\tone two",
        "b\tthree",
        "c\tfour",
        "d\tfive",
        "e\t日本語 one two three",
        "long\t" + "far too much to say " * 10,
        "cyrillic\tпривет",
        "dots\t...",
        "a\tone again",
        "missing\tno file",
        "a line without a tab",
        "",
    ]
    (tmp_path / "t.tsv").write_text("\n".join(lines), encoding="utf-8")
    report = import_folder(tmp_path / "in", tmp_path / "out", tmp_path / "t.tsv")
    assert rows(report) == {
        "t.tsv:6": "transcript too long",
        "t.tsv:7": "other script",
        "t.tsv:8": "no words",
        "t.tsv:9": "duplicate id",
        "t.tsv:10": "transcript without audio",
        "t.tsv:11": "unreadable line",
    }
    assert open_manifest(tmp_path / "out").ids() == ["a", "b", "c", "d", "e"]
    more = import_folder(tmp_path / "in", tmp_path / "out", tmp_path / "t.tsv", any_script=True)
    assert (more.added, more.utterances) == (1, 6)


def test_names_below_a_sub_folder_find_their_files_or_say_why_not(tmp_path: Path, wav: WavFile):
    for name in ("en/sorry", "en/followme/sorry", "en/digits/1", "en/silence/1", "en/dial/2", "en/press/2"):
        wav(f"in/{name}.wav", 1.0)
    lines = [
        "sorry: a",
        "followme/sorry: b",
        "digits/1: c",
        "en/silence/1.wav: d",
        "2: e",
        "1: f",
        "bye/1: g",
    ]
    (tmp_path / "t.txt").write_text("\n".join(lines))
    report = import_folder(tmp_path / "in", tmp_path / "out", tmp_path / "t.txt")
    assert {utterance.id: utterance.text for utterance in open_manifest(tmp_path / "out")} == {
        "en/sorry": "a",
        "en/followme/sorry": "b",
        "en/digits/1": "c",
        "en/silence/1": "d",
        "en/dial/2": None,
        "en/press/2": None,
    }
    assert rows(report) == {
        "t.txt:5": "ambiguous name",
        "t.txt:6": "duplicate id",
        "t.txt:7": "transcript without audio",
    }
    reasons = [problem.reason for problem in report.problems]
    assert reasons[0] == "'2' may be en/dial/2.wav or en/press/2.wav: write more of the path"
    assert "'1' is en/digits/1.wav, which has a transcript already (t.txt:3)" in reasons[1]


STAGED = {
    "tone": ("[ascending tones]", None),
    "nested": ("[a tone [rising]] <beep>", None),
    "silence": ("(10 seconds of silence).", None),
    "dollar": ("Dollar [$]", "dollar"),
    "laughs": ("[laughs]Well <breath> then", "well then"),
    "aside": ("Press 1 (one)", "press one one"),
    "open": ("Well [then", "well then"),
}


def test_stage_directions_are_no_words(tmp_path: Path, wav: WavFile):
    for name in STAGED:
        wav(f"in/{name}.wav", 2.0)
    (tmp_path / "t.tsv").write_text("".join(f"{name}\t{text}\n" for name, (text, _) in STAGED.items()))
    report = import_folder(tmp_path / "in", tmp_path / "out", tmp_path / "t.tsv")
    assert rows(report) == {"t.tsv:1": "no words", "t.tsv:2": "no words", "t.tsv:3": "no words"}
    spoken = {name: text for name, (_, text) in STAGED.items() if text}
    assert {utterance.id: utterance.text for utterance in open_manifest(tmp_path / "out")} == spoken
    as_written = import_folder(tmp_path / "in", tmp_path / "raw", tmp_path / "t.tsv", normalise_text=False)
    assert as_written.counts() == report.counts()
    assert {u.id: u.text for u in open_manifest(tmp_path / "raw")} == {
        name: STAGED[name][0] for name in spoken
    }


def test_the_script_is_that_of_what_is_spoken(tmp_path: Path, wav: WavFile):
    for number in range(5):
        wav(f"in/{number}.wav", 2.0)
    texts = ["你好 [laughs loudly]", "世界", "[noise]", "[noise]", "再见"]
    (tmp_path / "t.tsv").write_text(
        "".join(f"{n}\t{text}\n" for n, text in enumerate(texts)), encoding="utf-8"
    )
    report = import_folder(tmp_path / "in", tmp_path / "out", tmp_path / "t.tsv")
    assert report.counts() == {"no words": 2}


def test_unusable_transcripts_are_refused(tmp_path: Path, wav: WavFile):
    wav("in/a.wav")
    with pytest.raises(CorpusError, match=r"gone\.tsv: no such file"):
        import_folder(tmp_path / "in", tmp_path / "out", tmp_path / "gone.tsv")
    (tmp_path / "t.tsv").write_bytes("a\tgood\nb\tcaf\xe9\n".encode("latin-1"))
    with pytest.raises(CorpusError, match=r"t\.tsv:2: not UTF-8"):
        import_folder(tmp_path / "in", tmp_path / "out", tmp_path / "t.tsv")
