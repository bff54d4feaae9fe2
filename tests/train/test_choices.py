"""What a training finds out by itself before its first step, and that it goes on with what was found."""

from pathlib import Path
from typing import Any

import pytest

from raysr.config import Spec
from raysr.errors import ConfigError
from raysr.train import loop
from raysr.train.checkpoint import read
from raysr.train.choices import begun
from raysr.train.job import TrainConfig, TrainJob
from tests.train.jobs import changed, small_job
from tests.train.ranks import on_ranks
from tests.train.recorder import Recorder

AUTO = {"comm": {"kind": "auto", "accuracy": "compressed"}}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    return small_job(tmp_path_factory.mktemp("choices"), steps=4, checkpoint_every=2)


def by_choice(job: TrainJob, folder: Path) -> dict[str, Any]:
    """Train with what is found, and go on from the middle."""
    outcome: dict[str, Any] = {}
    for name, options in {"comm": AUTO, "batch": {"batch_seconds": "auto"}}.items():
        this = changed(job, **options)
        first, again = Recorder(folder / name), Recorder(folder / f"{name} again")
        loop.train(this, first)
        loop.train(this, again, folder / name / "2")
        progress = read(folder / name / "4", 0, 2).progress
        outcome[name] = (first.notes, again.notes, first.losses, again.losses, progress)
    return outcome


@pytest.fixture(scope="module")
def found(job: TrainJob, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(2, by_choice, job, tmp_path_factory.mktemp("found"))


def test_the_exchange_is_chosen_once_told_with_its_reasons_and_kept(found: list[dict[str, Any]]) -> None:
    for rank in found:
        [note], again, losses, after, progress = rank["comm"]
        assert progress.comm == note["comm"]
        assert note["comm"].get("start", 2) == 2  # the job's warm-up
        assert note["accuracy"] == "compressed"
        assert "a step computes for" in note["why"]
        assert set(note["seconds"]) | set(note["at_least"]) >= {"none", "bf16", "PowerSGD of rank 1"}
        assert again == []
        assert after == losses[2:]
    assert found[0]["comm"][0] == found[1]["comm"][0]


@pytest.mark.parametrize("comm", [{"kind": "powersgd", "rank": 2}, {"kind": "8bit"}, {"kind": "bf16"}])
def test_what_compresses_begins_when_the_learning_rate_has_warmed_up(comm: dict[str, Any]) -> None:
    late = {} if comm["kind"] == "bf16" else {"start": 7}
    assert begun(Spec(**comm), 7).model_dump() == {**comm, **late}


def test_the_largest_batch_is_found_once_told_and_kept(found: list[dict[str, Any]], job: TrainJob) -> None:
    for rank in found:
        [note], again, losses, after, progress = rank["batch"]
        assert note["bytes"] <= note["limit"]
        assert progress.batch_frames == pytest.approx(note["batch_seconds"] * 100)
        assert progress.piece_frames == progress.batch_frames // 2
        assert again == []
        assert after == losses[2:]


def test_one_rank_alone_exchanges_nothing_whatever_it_is_asked(job: TrainJob, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    loop.train(changed(job, **AUTO), recorder)
    assert recorder.notes == []
    assert {row.payload_bytes for row in recorder.rows} == {0}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"comm": {"kind": "powersdg"}}, "no comm is called 'powersdg'; did you mean 'powersgd'"),
        ({"comm": {"kind": "powersgd", "ranks": 2}}, "did you mean 'rank'"),
        ({"comm": {"kind": "auto", "accuracy": "apart"}}, "accuracy"),
        ({"optimiser": {"kind": "onebit_adam"}, "comm": {"kind": "8bit"}}, "has nothing left to do"),
        ({"optimiser": {"kind": "zero"}, "comm": {"kind": "diloco"}}, "one state for all ranks"),
        ({"final": "best"}, "set keep_best"),
        ({"final": "best", "keep_best": 1, "comm": {"kind": "diloco"}}, "of no one model"),
        ({"batch_seconds": "auto", "micro_batch_seconds": 3}, "leave out micro_batch_seconds"),
        ({"batch_seconds": 0}, "batch_seconds"),
    ],
)
def test_options_that_do_not_go_together_are_refused_with_the_way_out(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        TrainConfig.parse(options)
