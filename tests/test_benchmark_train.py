"""What the measurement of training rests on: which steps count, what is compared, and that both ways do the same."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
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


def row(
    step: int, at: float, wait: float = 0.0, whole: bool = True, in_turns: bool = True, seconds: float = 1.0
) -> dict[str, Any]:
    metrics = {"step": step, "seconds_per_step": seconds, "data_wait": wait, "loss": 1.0}
    return {"metrics": metrics, "at": at, "whole": whole, "in_turns": in_turns}


def seen(seconds: float, wait: float = 0.0, startup: float = 1.0, loss: float = 1.0) -> dict[str, Any]:
    rows = [row(50, 450.0, 0.9), row(100, 450 + 50 * seconds, wait)]
    rows[-1]["metrics"]["loss"] = loss
    return {"rows": rows, "startup_s": startup, "total_s": startup + 2, "beside": 0.05}


def prepared(first: float, second: float) -> dict[str, Any]:
    return {"epochs": [{"seconds": first, "hours": 0.5}, {"seconds": second, "hours": 0.25}]}


def test_the_first_steps_do_not_count_nor_do_those_that_one_has_left() -> None:
    rows = [
        row(50, 450, 0.9),
        row(100, 900, 0.9),
        row(150, 950),
        row(160, 990),
        row(170, 999, in_turns=False),
    ]
    assert steady(rows, first=100)[0] == (50 * 1 + 10 * 4) / 60
    assert steady(rows, first=101)[0] == 4.0  # a row that has a step that does not count is none that does
    with pytest.raises(ValueError, match="no metrics in turns after the first 160 steps"):
        steady(rows, first=160)


def test_waiting_is_told_by_metrics_between_which_nothing_was_stopped() -> None:
    rows = [row(50, 50), row(100, 100, 0.1), row(150, 150, 0.9, whole=False), row(160, 160, 0.0, seconds=5.0)]
    assert steady(rows, first=50)[1] == pytest.approx(0.1 * 50 / (50 + 10 * 5))


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
    assert "| cache | ray | 2.0000 | 1.00% | 6.0 | 0.050 | 0.950 (0.500–1.500) |" in as_table(found)


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
    order: list[tuple[str, ReadingConfig]] = []

    def carried_out(jobs: dict[str, TrainJob], folder: Path) -> dict[str, train_ways.Seen]:
        order.extend((way, job.train.reading) for way, job in jobs.items())
        assert len({job.out for job in jobs.values()} | {job.cache for job in jobs.values()}) == 4
        return {way: train_ways.Seen([], 0, 0, 0) for way in jobs}

    monkeypatch.setattr("benchmarks.train.carry_out", carried_out)
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


TICKING = """
import json, pathlib, sys, time
job, pace = json.loads(pathlib.Path(sys.argv[2]).read_text()), float(sys.argv[1])
out = pathlib.Path(job["out"])
out.mkdir(parents=True)
with (out / "metrics.jsonl").open("a", buffering=1) as file:
    for step in range(1, job["train"]["steps"] + 1):
        time.sleep(pace)
        file.write(json.dumps({"step": step, "seconds_per_step": pace, "time": time.monotonic()}) + "\\n")
"""


def ticking(folder: Path, monkeypatch: pytest.MonkeyPatch, pace: Mapping[str, float]) -> dict[str, TrainJob]:
    """Return trainings that take their steps in a process below the one that is started, as torchrun's do."""
    ways = {way: ["-c", PARENT, TICKING, str(seconds)] for way, seconds in pace.items()}
    monkeypatch.setattr(train_ways, "WAYS", ways)
    monkeypatch.setattr(train_ways, "TURN_S", 0.3)
    common = {"init": "", "tokeniser": "", "cache": "", "sources": [SOURCE], "train": {"steps": 40}}
    return {way: TrainJob.parse({**common, "out": str(folder / "out" / way)}) for way in pace}


PARENT = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', *sys.argv[1:]]))"


def test_trainings_take_turns_and_their_time_stands_still_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = ticking(tmp_path, monkeypatch, {"slow": 0.05, "fast": 0.02})
    found = carry_out(jobs, tmp_path / "run")
    times = {way: [each.metrics["time"] for each in seen_of.rows] for way, seen_of in found.items()}
    assert max(times["fast"]) < max(times["slow"])
    for way, seen_of in found.items():
        assert [each.metrics["step"] for each in seen_of.rows] == list(range(1, 41))
        waited = [after - before for before, after in pairwise(times[way])]
        stopped = [number for number, seconds in enumerate(waited, 1) if seconds > 0.25]
        assert len(stopped) >= 2
        assert not any(seen_of.rows[number].whole for number in stopped)
        assert sum(each.whole for each in seen_of.rows) > 20
        own = seen_of.rows[-1].at - seen_of.rows[0].at
        assert (
            sum(waited) - sum(waited[n - 1] for n in stopped) - 0.5 < own < sum(waited) - 0.2 * len(stopped)
        )
        assert seen_of.total_s >= seen_of.rows[-1].at
        assert 0 <= seen_of.beside < 0.2  # the parent, or the child: neither does much
        assert not seen_of.rows[0].in_turns  # the others have not begun
    assert all(each.in_turns for each in found["fast"].rows[5:])
    left = [each.metrics["step"] for each in found["slow"].rows if not each.in_turns]
    late = [step for step in left if step > 10]
    assert late == list(range(late[0], 41))
    gone = [way for way in jobs if any(str(tmp_path) in command for command in commands())]
    assert gone == []


def commands() -> list[str]:
    """Return the command lines of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_text())
    return found


def test_one_that_fails_ends_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = ticking(tmp_path, monkeypatch, {"steady": 0.05, "broken": 0.05})
    broken = ["-c", "import time; print('no such thing', flush=True); time.sleep(0.2); raise SystemExit(3)"]
    monkeypatch.setattr(train_ways, "WAYS", {**train_ways.WAYS, "broken": broken})
    with pytest.raises(RunError, match="broken ended with 3\nno such thing"):
        carry_out(jobs, tmp_path / "run")
    assert not any(str(tmp_path) in command for command in commands())


def test_torchrun_trains_and_its_start_is_told_apart(tmp_path: Path) -> None:
    job = small_job(tmp_path, steps=3)
    found = carry_out({TORCHRUN: job}, tmp_path / "run")[TORCHRUN]
    assert [each.metrics["step"] for each in found.rows] == [1, 2, 3]
    assert 0 < found.startup_s < found.total_s
