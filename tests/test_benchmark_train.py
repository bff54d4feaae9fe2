"""What the measurement of training rests on: which steps count, what is compared, and that both ways do the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import train_ways
from benchmarks.arms import RECIPE
from benchmarks.train import (
    CACHE,
    KEPT,
    PREPARE,
    QUOTED,
    READINGS,
    STREAM,
    Cell,
    Pair,
    Preparation,
    as_table,
    evaluate,
    file_of,
    plan,
    steady,
)
from benchmarks.train_data import FORMS, LABELLED, Material
from benchmarks.train_reading import epochs, prepare
from benchmarks.train_ways import RANKS, RAY, TORCHRUN, carry_out
from raysr.corpus.manifest import open_manifest
from raysr.errors import RunError
from raysr.ipl.config import read_config
from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser
from raysr.train.data import open_data
from raysr.train.job import TrainJob
from raysr.train.reading.options import ReadingConfig
from raysr.train.sampler import shard
from tests.train.jobs import changed, small_job, sources

SOURCE = {"name": "train", "manifest": ""}
STREAMED = {"reading": {"stream": True, "cache": "disk"}}


def row(step: int, seconds: float, wait: float = 0.0, loss: float = 1.0) -> dict[str, float]:
    return {"step": step, "seconds_per_step": seconds, "data_wait": wait, "loss": loss}


def seen(seconds: float, wait: float = 0.0, startup: float = 1.0, loss: float = 1.0) -> dict[str, Any]:
    metrics = [row(50, 9.0, 0.9), row(100, seconds, wait, loss)]
    return {"metrics": metrics, "startup_s": startup, "total_s": startup + 2}


def prepared(first: float, second: float) -> dict[str, Any]:
    return {"epochs": [{"seconds": first, "hours": 0.5}, {"seconds": second, "hours": 0.25}]}


def test_the_first_steps_do_not_count_and_a_short_last_row_counts_by_its_steps() -> None:
    rows = [row(50, 9.0, 0.9), row(100, 9.0, 0.9), row(150, 1.0, 0.1), row(160, 4.0, 0.0)]
    seconds, wait = steady(rows, first=100)
    assert seconds == pytest.approx((50 * 1 + 10 * 4) / 60)
    assert wait == pytest.approx(0.1 * 50 / 90)
    assert steady(rows, first=101)[0] == 4.0  # a row that has a step that does not count is none that does
    with pytest.raises(ValueError, match="no metrics after the first 160 steps"):
        steady(rows, first=160)


def test_ratios_are_of_pairs_and_above_one_where_ray_is_faster() -> None:
    pairs: dict[Cell, dict[str, Any]] = {
        Pair(CACHE, 0, 100, 50): {TORCHRUN: seen(1.0, 0.01), RAY: seen(2.0, 0.03, startup=5.0)},
        Pair(CACHE, 1, 100, 50): {TORCHRUN: seen(3.0, 0.01), RAY: seen(2.0, 0.01, startup=7.0)},
        Pair(CACHE, 2, 100, 50): {TORCHRUN: seen(1.9, 0.01), RAY: seen(2.0, 0.01, startup=6.0)},
        Pair(STREAM, 0, 100, 50): {TORCHRUN: seen(1.0, 0.04), RAY: seen(1.0, 0.02)},
    }
    found = evaluate(pairs)
    assert found["ratios"] == {CACHE: [0.5, 1.5, 0.95], STREAM: [1.0]}
    assert found["ratio_vs_torchrun"] == 0.95
    assert found["step_s"][CACHE] == {TORCHRUN: 1.9, RAY: 2.0}
    assert found["startup_s"][CACHE] == {TORCHRUN: 1.0, RAY: 6.0}
    assert found["data_wait"][CACHE][RAY] == pytest.approx(0.01)
    assert found["data_wait_share"] == pytest.approx(0.04)  # the worst of them
    assert found["same_losses"] is True
    assert "| cache | ray | 2.0000 | 1.00% | 6.0 | 0.950 (0.500–1.500) |" in as_table(found)


def test_a_way_or_a_reading_that_trains_otherwise_is_found_out() -> None:
    same = {TORCHRUN: seen(1.0, loss=1.0), RAY: seen(2.0, loss=1.0)}
    other = np.nextafter(1.0, 2.0)
    for way in (TORCHRUN, RAY):
        pair = {**same, way: seen(1.0, loss=other)}
        assert evaluate({Pair(CACHE, 0, 100, 50): pair})["same_losses"] is False
    both = {TORCHRUN: seen(1.0, loss=other), RAY: seen(1.0, loss=other)}
    assert evaluate({Pair(CACHE, 0, 100, 50): same, Pair(STREAM, 0, 100, 50): both})["same_losses"] is False


def test_preparing_is_told_for_an_hour_of_audio_and_its_speedup_by_rounds() -> None:
    rounds = {
        Preparation("flac", RANKS, "disk", n): prepared(*costs)
        for n, costs in enumerate([(4.0, 0.5), (6.0, 1.0), (5.0, 0.1)])
    }
    found = evaluate({**rounds, Preparation("wav", 1, "memory", 0): prepared(1.0, 1.0)})
    assert found["prepare_s"] == {"epoch1": 10.0, "epoch2": 2.0}
    assert found["epoch2_speedup"] == 4.0
    assert found["preparation"][QUOTED]["epoch2_speedup"] == 4.0
    assert found["preparation"]["wav-1-memory"]["epoch2_speedup"] == 0.5
    assert "ratio_vs_torchrun" not in found
    assert f"| {QUOTED} | 10.00 | 2.00 | 4.0 |" in as_table(found)


def test_all_is_measured_round_by_round_and_kept_apart(tmp_path: Path) -> None:
    cells = plan([CACHE, STREAM, PREPARE], rounds=3, steps=100, first=50)
    assert len({file_of(cell, tmp_path) for cell in cells}) == len(cells) == 3 * (2 + 2 * 2 * 2)
    assert [cell.number for cell in cells] == sorted(cell.number for cell in cells)
    assert QUOTED in {cell.setting for cell in cells if isinstance(cell, Preparation)}
    assert file_of(Pair(CACHE, 0, 100, 50), tmp_path) != file_of(Pair(CACHE, 0, 100, 60), tmp_path)
    assert plan([STREAM], rounds=1, steps=100, first=50) == [Pair(STREAM, 0, 100, 50)]


def test_each_way_goes_first_every_other_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    monkeypatch.setattr(
        "benchmarks.train.carry_out",
        lambda way, job, folder: order.append((way, job.train.reading)) or train_ways.Seen([], 0, 0),
    )
    for number in range(2):
        Pair(STREAM, number, 100, 50).measure(Material(tmp_path), tmp_path / str(number))
    assert [way for way, _ in order] == [TORCHRUN, RAY, RAY, TORCHRUN]
    assert {reading for _, reading in order} == {ReadingConfig(stream=True, cache="disk")}


def test_what_is_trained_is_the_recipe_but_for_what_is_asked(tmp_path: Path) -> None:
    given = Material(tmp_path)
    job = given.job(tmp_path / "out", given.manifest("flac", LABELLED), given.features, {"steps": 7})
    options = read_config(RECIPE).trainer.options
    trained = job.train.dump()
    assert trained.pop("steps") == 7
    assert trained == {name: options[name] for name in trained}
    assert job.model == read_config(RECIPE).model
    for reading in [*READINGS.values(), *KEPT.values()]:
        ReadingConfig.parse(reading)
    assert set(FORMS) == {"flac", "wav"}


def test_an_epoch_of_preparing_has_every_utterance_and_the_next_one_as_many_batches(tmp_path: Path) -> None:
    job = changed(small_job(tmp_path), **STREAMED)
    tokeniser = Tokeniser.load(job.tokeniser)
    model = AsrModel(job.model, tokeniser.vocab_size)
    dealt: list[tuple[int, list[int]]] = []
    begun: list[int] = []

    def refuse(*told: str) -> None:
        raise AssertionError(told)

    with open_data(job, model, tokeniser, refuse, refuse, refuse) as data:
        make = data.part

        def part(step: int, indices: np.ndarray, piece: int | None, rank: int, ranks: int) -> Any:
            assert (rank, ranks) == (1, 2)
            made = make(step, indices, piece, rank, ranks)
            assert [name for names in made.names for name in names] == [
                data.names[i] for i in shard(indices, rank, ranks)
            ]
            dealt.append((step, indices.tolist()))
            return made

        object.__setattr__(data, "part", part)
        costs = list(epochs(job, data, 1, 2, lambda: begun.append(len(dealt))))
        seconds = [sum(data.lengths.frames[i // 12][i % 12] for i in batch) / 100 for _, batch in dealt]
    assert [step for step, _ in dealt] == list(range(len(dealt)))
    length = begun[1]
    assert begun[0] == 0
    assert len(dealt) == 2 * length
    assert {i for _, batch in dealt[:length] for i in batch} == set(range(24))
    assert {i for _, batch in dealt[: length - 1] for i in batch} != set(range(24))
    assert [cost.hours * 3600 for cost in costs] == pytest.approx(
        [sum(seconds[:length]), sum(seconds[length:])]
    )
    assert all(cost.seconds > 0 for cost in costs)


def test_ranks_prepare_together_and_one_that_fails_ends_the_other(tmp_path: Path) -> None:
    job = changed(small_job(tmp_path), **STREAMED)
    first, second = prepare(job, ranks=2)
    assert first.hours > 0
    assert second.hours > 0
    utterances = list(open_manifest(job.sources[0].manifest))
    (tmp_path / "damaged.wav").write_bytes(b"no audio")
    damaged = replace(utterances[0], audio=str(tmp_path / "damaged.wav"), row=None)
    broken = job.dump() | {"sources": sources(tmp_path, [damaged, *utterances[1:]])}
    with pytest.raises(RunError, match=f"{damaged.id} is left out"):
        prepare(TrainJob.parse(broken), ranks=2)


def test_torchrun_trains_and_its_start_is_told_apart(tmp_path: Path) -> None:
    job = small_job(tmp_path, steps=3)
    found = carry_out(TORCHRUN, job, tmp_path / "run")
    assert [each["step"] for each in found.metrics] == [1, 2, 3]
    assert 0 < found.startup_s < found.total_s
    with pytest.raises(ValueError, match="after the first 3"):
        steady(found.metrics, first=3)


def test_a_training_that_fails_is_an_error_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_ways, "WAYS", {"broken": ["-c", "print('no such thing'); raise SystemExit(3)"]})
    job = TrainJob.parse(
        {"out": str(tmp_path), "init": "", "tokeniser": "", "cache": "", "sources": [SOURCE]}
    )
    with pytest.raises(RunError, match="no such thing"):
        carry_out("broken", job, tmp_path / "run")
