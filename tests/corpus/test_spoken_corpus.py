"""Speaking text: a labelled corpus whose transcripts are what was said, whole or not there at all."""

from pathlib import Path

import pytest

from raysr.corpus.inspect import inspect
from raysr.corpus.load import load_waveform
from raysr.corpus.manifest import open_manifest
from raysr.corpus.synthesis import spoken
from raysr.corpus.synthesis.spoken import speak_corpus, speakable
from raysr.errors import CorpusError

pytest.importorskip("espeakng_loader", reason="needs raysr[voices]")

LINES = ["Good morning, everyone!", "Press 2 to continue.", "the kitchen is closed until monday morning"]


@pytest.fixture(autouse=True)
def espeak_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spoken, "ENGINES", {"espeak": 1})


def written(folder: Path, text: str) -> Path:
    path = folder / "text.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_sentence_is_spoken_once_as_its_transcript_says(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    report = speak_corpus(written(tmp_path, "\n".join(LINES)), out, short=0)
    corpus = list(open_manifest(out))
    assert sorted(u.text or "" for u in corpus) == [
        "good morning everyone",
        "press two to continue",
        "the kitchen is closed until monday morning",
    ]
    seconds = {u.text: len(load_waveform(u)) / 16000 for u in corpus}
    assert seconds["the kitchen is closed until monday morning"] > 1.5 * seconds["press two to continue"]
    assert report.hours * 3600 == pytest.approx(sum(seconds.values()), abs=0.1)
    assert not inspect(corpus).problems


def test_short_utterances_are_pieces_of_the_sentences(tmp_path: Path) -> None:
    speak_corpus(written(tmp_path, "\n".join(LINES * 4)), tmp_path / "out", short=1)
    for utterance in open_manifest(tmp_path / "out"):
        assert utterance.text is not None
        assert 1 <= len(utterance.text.split()) <= 3
        assert any(
            utterance.text in line for line in ["good morning everyone", "press two to continue", LINES[2]]
        )


def test_the_same_seed_speaks_the_same(tmp_path: Path) -> None:
    text = written(tmp_path, "\n".join(LINES))
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        speak_corpus(text, tmp_path / name, seed=seed)
    one, again, other = (
        [(u.text, u.speaker, load_waveform(u).tobytes()) for u in open_manifest(tmp_path / name)]
        for name in ("one", "again", "other")
    )
    assert one == again != other


def test_what_cannot_be_spoken_is_counted() -> None:
    sentences, left_out = speakable(["yes", "yes", "да", "word " * 29 + "word"], longest=90)
    assert sentences == ["yes"]
    assert left_out == {"said before": 1, "letters that English has not": 1, "longer than 90 characters": 1}


@pytest.mark.parametrize("content", ["", "\n\n", "да\n"])
def test_a_text_without_sentences_is_refused(content: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="holds no sentence"):
        speak_corpus(written(tmp_path, content), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_stands_in_the_way_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = written(tmp_path, "yes")
    with pytest.raises(CorpusError, match="No such file"):
        speak_corpus(tmp_path / "gone.txt", tmp_path / "out")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(CorpusError, match="not UTF-8"):
        speak_corpus(tmp_path / "latin.txt", tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(CorpusError, match="exists already"):
        speak_corpus(text, tmp_path / "out")
    monkeypatch.setattr(spoken, "ENGINES", {"festival of none": 1})
    with pytest.raises(CorpusError, match=r"pip install 'raysr\[voices\]'"):
        speak_corpus(text, tmp_path / "new")


def test_an_interrupted_corpus_leaves_nothing_and_starts_over(tmp_path: Path) -> None:
    text = written(tmp_path, "\n".join(LINES))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        speak_corpus(text, tmp_path / "out", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
    assert speak_corpus(text, tmp_path / "out").utterances == 3
    assert len(list(open_manifest(tmp_path / "out"))) == 3
