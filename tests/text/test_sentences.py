"""Sentences out of files that people have, and errors that name those that hold none."""

from pathlib import Path

import pytest

from raysr.errors import CorpusError
from raysr.text.sentences import read_sentences


def written(folder: Path, text: str) -> Path:
    path = folder / "text.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_line_is_a_sentence(tmp_path: Path) -> None:
    text = "Press 2. Then wait!\n---\n\npress two then wait\nДа\n"
    expected = ["press two then wait", "press two then wait", "да"]
    assert read_sentences(written(tmp_path, text)) == expected


def test_prose_is_cut_into_sentences(tmp_path: Path) -> None:
    text = "It was late.  She\nwent home! Was it\nfar?\n%\nA new\nparagraph\n\nand another\n"
    expected = ["it was late", "she went home", "was it far", "a new paragraph", "and another"]
    assert read_sentences(written(tmp_path, text), prose=True) == expected


@pytest.mark.parametrize("content", ["", "\n\n", "---\n...\n"])
def test_a_file_without_sentences_is_named(content: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"text\.txt holds no sentence"):
        read_sentences(written(tmp_path, content))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"gone\.txt: No such file"):
        read_sentences(tmp_path / "gone.txt")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(CorpusError, match=r"latin\.txt: not UTF-8"):
        read_sentences(tmp_path / "latin.txt")
