"""Trainings on Ray's workers: what they leave behind, and how they go on when a worker or the driver dies."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from processes import wait_until
from safetensors.torch import load_file

from raysr.cluster import Connection
from raysr.errors import RunError
from raysr.train.checkpoint import absent
from raysr.train.job import Scaling, TrainJob
from raysr.train.local import fit_local
from tests.train.jobs import changed, small_job
from tests.train.ray_workers import FIT, leave_environment, registered

pytestmark = pytest.mark.ray
TWO = Scaling(min=2, max=2, cpus=1, max_failures=1)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def steps(folder: Path) -> list[int]:
    """Return the steps after which the checkpoints in a folder were written."""
    return sorted(int(found.name.split("-")[1]) for found in folder.glob("checkpoint-*"))


def group_of_two(environment: Mapping[str, str], folder: Path) -> list[dict[str, str]]:
    """Return the environment of two workers of Ray Train that have met, as :func:`fit` has them meet."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from raysr.train.ray_backend import GroupConfig

    TorchTrainer(
        leave_environment,
        train_loop_config={"folder": str(folder)},
        torch_config=GroupConfig(timeout_s=60, environment=environment),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name="meeting", storage_path=str(folder)),
    ).fit()
    return [json.loads((folder / f"rank-{rank}").read_text()) for rank in range(2)]


def kept(folder: Path) -> tuple[list[str], str]:
    """Return the checkpoints that Ray Train would start with, the best one last, and the newest of them."""
    from ray.train import Result

    found = Result.from_path(folder)
    return [checkpoint.path for checkpoint, _ in found.best_checkpoints], found.checkpoint.path


def test_workers_have_the_networks_settings_before_they_meet(ray_cluster: Connection, tmp_path: Path) -> None:
    settings = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_IB_HCA": "mlx5_7"}
    for environment in group_of_two(settings, tmp_path):
        assert {name: environment[name] for name in settings} == settings
        assert environment["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "0"


def test_the_best_checkpoint_and_the_last_one_are_kept_and_all_ranks_parts_are_in_them(
    ray_cluster: Connection, tmp_path: Path
) -> None:
    from raysr.train.ray_checkpoints import mend
    from raysr.train.ray_trainer import fit

    data = small_job(tmp_path, steps=8, checkpoint_every=2).dump()
    data["train"] |= {"keep_best": 1, "final": "best"}
    # a rate that leads ever further away
    data["train"] |= {"optimiser": {"lr": 3.0}, "schedule": {"warmup_steps": 4, "kind": "constant"}}
    job = TrainJob.parse(data | {"dev": data["sources"][0]["manifest"]})
    weights = fit(job, TWO, "student")
    folder = Path(job.out) / "student"
    scores = {
        result["checkpoint_dir_name"]: result["metrics"]["dev_loss"]
        for result in json.loads((folder / "checkpoint_manager_snapshot.json").read_text())[
            "checkpoint_results"
        ]
    }
    best = min(scores, key=scores.__getitem__)
    assert weights == folder / best / "model.safetensors"
    assert steps(folder) == [2, 8]
    assert best.startswith("checkpoint-000000002-")
    assert all(absent(path, 2) == [] for path in folder.glob("checkpoint-*"))
    assert {found.name for found in folder.glob("checkpoint-*")} == set(scores)
    assert [row["step"] for row in rows(Path(job.out) / "metrics.jsonl")] == list(range(1, 9))
    assert not (Path(job.out) / "preflight.json").exists()  # there is one node
    # Ray Train's list is good again after a kill while it was written, and when a damaged checkpoint is removed
    listed, before = folder / "checkpoint_manager_snapshot.json", kept(folder)
    listed.write_text(listed.read_text()[:-1])
    mend(folder, "dev_loss")
    assert kept(folder) == before
    (last, first), newest = before
    assert last == newest
    shutil.rmtree(newest)
    mend(folder, "dev_loss")
    assert kept(folder) == ([first], first)


def test_of_checkpoints_that_the_power_left_unfinished_none_is_listed(tmp_path: Path) -> None:
    from raysr.train.ray_checkpoints import mend

    for name, metrics in (("checkpoint-1", '{"step": 1}'), ("checkpoint-2", ""), ("checkpoint-3", '{"st')):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "progress.json").write_text(json.dumps({"step": int(name[-1]), "ranks": 1}))
        (folder / "rank-00000.json").write_text("{}")
        (folder / "metrics.json").write_text(metrics)
    listed = tmp_path / "checkpoint_manager_snapshot.json"
    listed.write_text("")
    mend(tmp_path, None)
    assert [
        result["checkpoint_dir_name"] for result in json.loads(listed.read_text())["checkpoint_results"]
    ] == ["checkpoint-1"]


def test_what_a_failed_training_had_reserved_is_free_again(ray_cluster: Connection) -> None:
    import ray

    from raysr.train.ray_trainer import _no_places_left

    before = ray.util.placement_group([{"CPU": 0.01}])
    left = []

    @_no_places_left()
    def fails() -> None:
        left.append(ray.util.placement_group([{"CPU": 0.01}]))
        ray.get(left[0].ready())
        raise RunError("no more")

    with pytest.raises(RunError, match="no more"):
        fails()
    states = ray.util.placement_group_table()
    assert states[left[0].id.hex()]["state"] == "REMOVED"
    assert states[before.id.hex()]["state"] != "REMOVED"
    ray.util.remove_placement_group(before)


def test_a_worker_without_a_gpu_sees_none(ray_cluster: Connection) -> None:
    import ray

    def seen() -> str | None:
        from raysr.train.ray_backend import hide_gpus

        hide_gpus()
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    assert ray.get(ray.remote(num_cpus=0)(seen).remote()) == ""


def test_a_checkpoint_that_a_dying_worker_leaves_unfinished_is_never_taken(
    ray_cluster: Connection, tmp_path: Path
) -> None:
    from raysr.train.ray_trainer import fit

    job = small_job(tmp_path, steps=6, checkpoint_every=2, keep_newest=3)
    folder = Path(job.out) / "student"
    mortal = {"kind": "tests.train.ray_workers:Mortal", "folder": str(folder), "before": 2, "step": 4}
    weights = fit(changed(job, comm=mortal), TWO, "student")
    told = rows(Path(job.out) / "metrics.jsonl")
    reached = [row["step"] for row in told[:-4]]  # the training goes on while a checkpoint is written
    assert reached in ([1, 2, 3, 4], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6])
    assert [row["step"] for row in told[-4:]] == [3, 4, 5, 6]
    assert [row["loss"] for row in told[2 : len(reached)]] == [row["loss"] for row in told[-4:]][
        : len(reached) - 2
    ]
    assert steps(folder) == [2, 4, 6]
    assert all(absent(path, 2) == [] for path in folder.glob("checkpoint-*"))
    assert weights.parent.name == registered(folder)[-1]


def test_a_second_fit_goes_on_where_a_killed_driver_was(ray_cluster: Connection, tmp_path: Path) -> None:
    from raysr.train.ray_trainer import fit

    job = small_job(tmp_path, steps=30, checkpoint_every=1)
    folder = Path(job.out) / "student"
    (tmp_path / "job.json").write_text(job.model_dump_json())
    driver = subprocess.Popen(
        [sys.executable, "-c", FIT, ray_cluster.address, str(tmp_path / "job.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until(lambda: len(registered(folder)) == 2, driver)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    weights = fit(job, TWO, "student")
    reached = [row["step"] for row in rows(Path(job.out) / "metrics.jsonl")]
    before = next(
        n for n, step in enumerate(reached) if step != n + 1
    )  # its workers may live a moment longer
    assert 2 < reached[before] <= before + 1
    assert reached[before:] == list(range(reached[before], 31))
    assert load_file(weights).keys() == load_file(job.init).keys()
    # finished as it is, it is only looked up
    assert fit(job, TWO, "student") == weights


def test_a_training_on_one_worker_is_that_of_one_process(ray_cluster: Connection, tmp_path: Path) -> None:
    from raysr.train.ray_trainer import fit

    job = small_job(tmp_path)
    alone = TrainJob.parse(job.dump() | {"out": str(tmp_path / "alone")})
    ours, theirs = load_file(fit(job, Scaling(min=1, max=1), "student")), load_file(fit_local(alone))
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_what_ends_a_training_is_told_with_its_reason(ray_cluster: Connection, tmp_path: Path) -> None:
    from raysr.train.ray_trainer import fit

    job = small_job(tmp_path)
    Path(job.tokeniser).unlink()
    with pytest.raises(
        RunError, match=r"^training student failed: .*tokenizer\.model.*; its logs are under "
    ):
        fit(job, Scaling(min=2, max=2, max_failures=0), "student")


def test_a_worker_that_dies_for_good_is_named(ray_cluster: Connection, tmp_path: Path) -> None:
    from raysr.train.ray_trainer import fit

    job = small_job(tmp_path, steps=4, checkpoint_every=2)
    mortal = {
        "kind": "tests.train.ray_workers:Mortal",
        "folder": f"{job.out}/student",
        "before": 2,
        "step": 4,
    }
    with pytest.raises(RunError, match=r"^training student failed: rank 1[: ]"):
        fit(changed(job, comm=mortal), Scaling(min=2, max=2, max_failures=0), "student")
