"""What the measurement of exchanges rests on: which steps are timed, whole rounds, and what is compared with what."""

import json
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.comm import LINKS, PREFLIGHT, TIMED, Cell, joined, plan
from benchmarks.comm_cluster import SKIPPED, WARM, Window, cores, follow, steps_of
from benchmarks.comm_data import MODEL, RANK_SECONDS, SECONDS, equally_long
from benchmarks.comm_report import (
    APART,
    COMPUTE,
    ROUND,
    SETTINGS,
    as_table,
    judge,
    name_of,
    seconds_of,
    summarise,
)
from raysr.audio.fbank import FbankConfig
from raysr.audio.files import decode
from raysr.config import Spec
from raysr.corpus.demo import demo_corpus
from raysr.errors import RunError
from raysr.model.model import AsrModel
from raysr.train.exchange.base import EXCHANGES
from raysr.train.network.payload import numbers
from raysr.train.sampler import MixedSampler, shard

SHAPES = [(64, 32), (7,)]


def steps(seconds: list[float], payload: float = 8220.0) -> list[dict[str, float]]:
    others = {"payload_bytes": payload, "comm_wait": 0.5, "skipped_steps": 0}
    return [{"seconds_per_step": each, **others} for each in seconds]


def lines(path: Path, over: Callable[[], bool] = lambda: False) -> Iterator[dict[str, int]]:
    return follow(path, over, patience=30, pause=0.001)


def test_lines_are_read_as_they_become_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    written = iter(['{"step": 1}\n{"st', 'ep": 2}', '\n{"step": 3}\n{"step": 4'])

    def over() -> bool:
        piece = next(written, None)
        if piece is not None:
            with path.open("a") as file:
                file.write(piece)
        return piece is None

    found = lines(path, over)
    assert [next(found)["step"] for _ in range(3)] == [1, 2, 3]
    with pytest.raises(RunError, match="has no more than 3 lines"):
        next(found)


def test_each_line_is_handed_out_before_the_next_one_is_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    found = lines(path)
    for step in (1, 2, 3):
        with path.open("a") as file:
            file.write(json.dumps({"step": step}) + "\n")
        assert next(found) == {"step": step}


def test_what_is_written_last_is_read_though_its_writer_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"

    def over() -> bool:
        path.write_text('{"step": 1}\n')
        return True

    assert list(islice(lines(path, over), 1)) == [{"step": 1}]


def test_a_line_that_does_not_come_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no more than 0 lines"):
        next(follow(tmp_path / "none", lambda: False, patience=0.01, pause=0.001))


def test_a_training_takes_the_steps_of_its_windows_and_those_that_do_not_count() -> None:
    windows = [Window("unlimited", None, 5), Window("100mbit", 100, 3)]
    assert steps_of(windows) == WARM + (SKIPPED + 5) + (SKIPPED + 3) + 1
    late = [setting.comm.get("start", 0) for setting in TIMED.values()]
    late += [setting.optimiser.get("freeze_step", 0) for setting in TIMED.values()]
    assert max(late) < WARM + SKIPPED  # no step is timed that is not what its setting says


def test_a_round_is_timed_whole_and_nothing_twice() -> None:
    cells = plan([*TIMED, PREFLIGHT], list(LINKS), 3)
    assert len(set(cells)) == len(cells)
    by_name: dict[str, list[Cell]] = {}
    for cell in (cell for cell in cells if not cell.turn):
        by_name.setdefault(cell.name, []).append(cell)
    assert [cell.steps for cell in by_name["none"]] == [3] * len(LINKS)
    assert [cell.steps for cell in by_name["local_sgd"]] == [ROUND] * len(LINKS)
    assert [cell.link for cell in by_name[COMPUTE]] == ["unlimited"]
    assert [cell.link for cell in by_name[PREFLIGHT]] == ["1gbit", "100mbit"]
    turns = [cell for cell in cells if cell.turn]
    assert {cell.link for cell in turns} == {"unlimited", "1gbit"}
    first, second = (list(dict.fromkeys(c.name for c in turns if c.turn == turn)) for turn in (1, 2))
    assert first == second[::-1]
    assert {"none", "fp16", "bf16", "onebit_adam"} < set(first)
    assert "local_sgd" not in first


def test_trainings_in_turns_count_as_one() -> None:
    one = {"metrics": steps([1.0, 1.0, 1.0]), "sent": 100.0}
    both = joined(one, {"metrics": steps([3.0]), "sent": 200.0})
    assert [step["seconds_per_step"] for step in both["metrics"]] == [1.0, 1.0, 1.0, 3.0]
    assert both["sent"] == 125.0


def test_a_cell_is_known_by_all_that_can_change_it(tmp_path: Path) -> None:
    cells = [
        Cell("none", "1gbit", 3),
        Cell("fp16", "1gbit", 3),
        Cell("fp16", "1gbit", 3, turn=1),
        Cell("none", "100mbit", 3),
        Cell("none", "1gbit", 4),
    ]
    assert len({cell.file(tmp_path) for cell in cells}) == len(cells)
    assert Cell("none", "1gbit", 3).file(tmp_path) == cells[0].file(tmp_path)


def test_a_step_is_the_median_and_where_not_all_are_alike_the_mean_of_rounds() -> None:
    assert seconds_of(SETTINGS["none"], steps([1.0, 1.1, 9.0])) == 1.1
    assert seconds_of(SETTINGS["local_sgd"], steps([1.0] * 7 + [9.0])) == 2.0
    with pytest.raises(AssertionError):
        seconds_of(SETTINGS["local_sgd"], steps([1.0] * 7))


def test_bytes_and_times_are_compared_with_theory_with_the_plain_exchange_and_with_computing() -> None:
    none = {"metrics": steps([2.0, 2.0]), "sent": 8300.0}
    half = {"metrics": steps([1.0, 1.0], 4110.0), "sent": 4110.0}
    alone = {"metrics": steps([0.5, 0.5], 0.0), "sent": 10.0}
    cells = {("none", "100mbit"): none, ("fp16", "100mbit"): half, (COMPUTE, "unlimited"): alone}
    found = summarise(cells, SHAPES, ranks=2)
    assert numbers(SHAPES) * 4 == 8220
    assert found["step_s"] == {"100mbit": {"none": 2.0, "fp16": 1.0}}
    assert found["payload_bytes"] == found["theory_bytes"] == {"none": 8220, "fp16": 4110}
    assert found["wire_ratio"] == {"none": pytest.approx(8300 / 8220), "fp16": 1.0}
    assert found["speedup_100mbit"] == {"fp16": 2.0}
    assert found["compute_only_s"] == 0.5
    assert found["over_compute"]["100mbit"] == {"none": 4.0, "fp16": 2.0}
    assert "| fp16 | 0.004 MB | 1.0000 | 1.000 | 1.00 |" in as_table(found)


def test_bytes_at_the_interface_are_weighed_by_steps() -> None:
    cells = {
        ("none", "unlimited"): {"metrics": steps([1.0] * 3), "sent": 8000.0},
        ("none", "1gbit"): {"metrics": steps([1.0]), "sent": 9000.0},
    }
    assert summarise(cells, SHAPES, ranks=2)["wire_bytes"] == {"none": 8250.0}


def test_a_choice_is_compared_with_what_is_as_accurate_or_more() -> None:
    step_s = {"none": 3.0, "bf16": 2.0, "powersgd4": 1.1, "powersgd1": 1.0, "local_sgd": 0.9}
    assert judge("exact", "none", step_s)["ratio"] == 1.0
    assert judge("rounded", "none", step_s) == {
        "chosen": "none",
        "step_s": 3.0,
        "best": "bf16",
        "best_step_s": 2.0,
        "ratio": 1.5,
    }
    assert judge("compressed", "powersgd4", step_s)["best"] == "powersgd1"
    assert judge("compressed", "8bit", step_s) == {"chosen": "8bit"}


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "onebit_adam"])
def test_settings_are_what_they_are_called(name: str) -> None:
    assert name_of(EXCHANGES.check(Spec(**SETTINGS[name].comm)).model_dump()) == name


def test_what_computes_alone_sends_nothing() -> None:
    assert APART.payload(SHAPES, 2).payload == 0


def test_the_student_has_25_million_parameters() -> None:
    student = AsrModel(MODEL, 500)
    assert sum(p.numel() for p in student.parameters()) == pytest.approx(25e6, rel=0.04)


def test_every_rank_has_20_seconds_of_audio_in_every_step() -> None:
    made = list(equally_long(demo_corpus().labelled, 8))
    samples = [decode(audio) for _, audio in made]
    assert [len(each) for each in samples] == [160_000] * 8
    assert len({utterance.id for utterance, _ in made}) == 8
    assert all(utterance.text and utterance.duration == SECONDS for utterance, _ in made)
    frames = FbankConfig().frames(len(samples[0]))
    sampler = MixedSampler([[frames] * 64], [1.0], round(2 * RANK_SECONDS * 100), 0.25, 0)
    for _ in range(40):
        batch = sampler.next()
        assert [len(shard(batch, rank, 2)) * SECONDS for rank in (0, 1)] == [RANK_SECONDS] * 2


def test_hosts_have_cores_of_their_own_where_there_are_two() -> None:
    first, second = cores(1), cores(2)
    if len(os.sched_getaffinity(0)) > 1:
        assert not set(first) & set(second)
    assert {*first, *second} == os.sched_getaffinity(0)
