"""Predictions are written whole, once for each utterance, and read back as they were."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.ipl.predictions import Prediction, Predictions, TeacherHypothesis
from raysr.teachers.base import TeacherOutput

SCORES = st.none() | st.floats(-100, 0)
OUTPUTS = st.builds(
    TeacherOutput,
    text=st.text(max_size=8),
    tokens=st.lists(st.integers(0, 99), max_size=4).map(tuple),
    score=SCORES,
    ctc=SCORES,
    word_confidences=st.lists(st.floats(0, 1, width=32), max_size=3).map(tuple),
    confidences=st.lists(st.floats(0, 1, width=32), max_size=3).map(tuple),
    nbest=st.lists(st.tuples(st.text(max_size=4), st.floats(-9, 0)), max_size=2).map(tuple),
    text_without_lm=st.none() | st.text(max_size=4),
    ended=st.none() | st.booleans(),
    error=st.none() | st.just("broken"),
)
HYPOTHESES = st.lists(st.builds(TeacherHypothesis, st.just("t"), st.just("v"), OUTPUTS), max_size=3).map(
    tuple
)


@given(st.dictionaries(st.text("xyz", min_size=1, max_size=4), HYPOTHESES, min_size=1, max_size=6))
def test_rows_read_back_as_written(tmp_path_factory, found: dict) -> None:
    folder = tmp_path_factory.mktemp("predictions")
    rows = [Prediction(name, 3, 1.5, hypotheses) for name, hypotheses in sorted(found.items())]
    predictions = Predictions(folder)
    predictions.write(rows)
    assert list(predictions) == rows
    assert predictions.ids() == set(found)


def test_a_block_labelled_twice_is_there_once(tmp_path: Path) -> None:
    predictions = Predictions(tmp_path)
    block = [Prediction("a", 0, 1.0, error="x"), Prediction("b", 0, 1.0, error="x")]
    predictions.write(block)
    predictions.write(block)
    assert [p.id for p in predictions] == ["a", "b"]
    assert len(list(tmp_path.glob("*.parquet"))) == 1


def test_overlapping_blocks_count_an_utterance_once(tmp_path: Path) -> None:
    predictions = Predictions(tmp_path)
    predictions.write([Prediction("a", 0, 1.0, error="x"), Prediction("b", 0, 1.0, error="x")])
    predictions.write([Prediction("b", 0, 1.0, error="x")])
    assert [p.id for p in predictions] == ["a", "b"]


def test_what_a_killed_writer_left_is_discarded(tmp_path: Path) -> None:
    predictions = Predictions(tmp_path)
    predictions.write([Prediction("a", 0, 1.0, error="x")])
    whole = next(tmp_path.glob("*.parquet"))
    (tmp_path / "torn.parquet").write_bytes(whole.read_bytes()[:-20])
    (tmp_path / ".half.parquet.0123.partial").write_bytes(b"PAR1")
    assert predictions.discard_broken() == 1
    assert [path.name for path in tmp_path.iterdir()] == [whole.name]
    assert predictions.ids() == {"a"}


@given(st.dictionaries(st.text("xyz", min_size=1, max_size=3), st.booleans(), max_size=6))
def test_rows_that_move_are_in_one_place_whatever_block_they_were_in(
    tmp_path_factory: pytest.TempPathFactory, moving: dict[str, bool]
) -> None:
    folder = tmp_path_factory.mktemp("predictions")
    here, there = Predictions(folder / "here"), Predictions(folder / "there")
    rows = [Prediction(name, 0, 1.0, error="x") for name in moving]
    for first in range(0, len(rows), 2):
        here.write(rows[first : first + 2])
    for _ in range(2):
        here.move({name for name, moves in moving.items() if moves}, there)
        assert here.ids() == {name for name, moves in moving.items() if not moves}
        assert there.ids() == {name for name, moves in moving.items() if moves}


def test_a_block_of_an_older_version_is_read(tmp_path: Path) -> None:
    predictions = Predictions(tmp_path)
    predictions.write([prediction("one")])
    path = next(tmp_path.iterdir())
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        del row["hypotheses"][0]["ended"], row["hypotheses"][0]["text_without_lm"]
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert predictions.discard_broken() == 0
    assert list(predictions) == [prediction("one")]


def test_files_of_teachers_that_said_less_are_read(tmp_path: Path) -> None:
    predictions = Predictions(tmp_path)
    output = TeacherOutput("one", confidences=(0.5,))
    rows = [Prediction("a", 0, 1.0, (TeacherHypothesis("t", "v", output),))]
    predictions.write(rows)
    [path] = tmp_path.glob("*.parquet")
    old = pq.read_table(path).to_pylist()
    for row in old:
        for hypothesis in row["hypotheses"]:
            del hypothesis["word_confidences"]
    pq.write_table(pa.Table.from_pylist(old), path)
    assert predictions.discard_broken() == 0
    assert list(predictions) == rows


def prediction(*texts: str | None) -> Prediction:
    outputs = [TeacherOutput(error="broken") if text is None else TeacherOutput(text) for text in texts]
    return Prediction("a", 0, 1.0, tuple(TeacherHypothesis("t", "v", output) for output in outputs))


@pytest.mark.parametrize(
    ("texts", "label"),
    [
        (["one"], "one"),
        (["one", "two"], "one"),
        (["thanks for no", "no", "no"], "no"),
        (["", "yes", "yes"], "yes"),
        (["right brace", "rite brace", "write base"], "rite brace"),
        ([None, "one", "two"], "one"),
        ([None, "one", "two", "two"], "two"),
    ],
)
def test_the_label_is_what_most_teachers_are_near_to(texts: list[str | None], label: str) -> None:
    found = prediction(*texts).label
    assert found is not None
    assert found.text == label


@given(st.lists(st.text("ab ", max_size=6), min_size=3, max_size=5))
def test_no_other_answer_is_nearer_to_all(texts: list[str]) -> None:
    def total(one: str) -> int:
        return sum(edits(one, other) for other in texts)

    found = prediction(*texts).label
    assert found is not None
    assert total(found.text) == min(map(total, texts))


def edits(one: str, other: str) -> int:
    """The textbook recursion (Levenshtein 1966), a row at a time."""
    row = list(range(len(other) + 1))
    for n, letter in enumerate(one, start=1):
        previous, row[0] = row[0], n
        for m, against in enumerate(other, start=1):
            previous, row[m] = row[m], min(row[m] + 1, row[m - 1] + 1, previous + (letter != against))
    return row[-1]
