"""What a training tells of itself: rows that several processes write into the same files."""

import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from raysr.errors import CorpusError
from raysr.train.journal import Journal
from raysr.train.metrics import StepMetrics

METRICS = StepMetrics(1, 2.5, 2.0, 3.0, float("nan"), 1e-3, 0.5, 0.1, 0.2, 100.0, 150.0, 4.0, 0.1, 0, 0)


def tell(out: Path, rank: int) -> None:
    journal = Journal(out, rank)
    journal.metrics(METRICS)
    journal.note({"comm": {"kind": "none"}})
    for number in range(200):
        journal.left_out(f"u{number}", "its audio is not there, " * 20)


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rank_zero_tells_how_it_goes_and_every_rank_what_it_left_out(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2) as executor:
        list(executor.map(partial(tell, tmp_path), range(2)))
    (metrics,) = rows(tmp_path / "metrics.jsonl")
    assert (metrics["step"], metrics["loss"], metrics["wire_bytes"]) == (1, 2.5, 150.0)
    assert rows(tmp_path / "notes.jsonl") == [{"comm": {"kind": "none"}}]
    left = rows(tmp_path / "left-out.jsonl")
    assert sorted((row["rank"], row["id"]) for row in left) == sorted(
        (rank, f"u{number}") for rank in range(2) for number in range(200)
    )


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CorpusError, match=f"cannot write to {tmp_path}/file"):
        Journal(tmp_path / "file", 0).note({})
