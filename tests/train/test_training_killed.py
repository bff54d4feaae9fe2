"""A training whose rank, worker or driver is killed ends as if nothing had happened, bit for bit."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import outliving, wait_until

from benchmarks.resume_fit import NAME
from benchmarks.resume_kill import ray_workers, strike, torchrun_ranks
from benchmarks.resume_rows import different, read_rows, told
from benchmarks.resume_seen import FOLDER, account
from raysr.cluster import Connection
from raysr.corpus.demo import demo_corpus
from raysr.errors import RunError
from raysr.train import loop
from raysr.train.job import Scaling, TrainJob
from raysr.train.local import fit_local
from raysr.train.sampler import MixedSampler, shard
from tests.train.jobs import changed, small_job, sources, still
from tests.train.ranks import on_ranks
from tests.train.ray_workers import registered
from tests.train.recorder import Recorder

OPTIONS: Mapping[str, dict[str, Any]] = {
    # without the convolutions' factors of nine numbers those of other layers lie where vectors round otherwise
    "powersgd": {"comm": {"kind": "powersgd", "rank": 1, "start": 2, "min_ratio": 5.0}, "ema_decay": 0.9},
    "8bit": {"comm": {"kind": "8bit", "start": 2}},
}
# enough for Ray Train to hear of a checkpoint before the last: it asks its workers once a second
STEPS, EVERY = 120, 20


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainJob]:
    """Trainings that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    job = small_job(folder, steps=STEPS, checkpoint_every=EVERY, batch_seconds=12.0)
    jobs = {name: moved(changed(job, **options), folder / name) for name, options in OPTIONS.items()}
    on_ranks(2, train_all, list(jobs.values()))
    return jobs


def train_all(jobs: Sequence[TrainJob]) -> None:
    for job in jobs:
        fit_local(job)


def moved(job: TrainJob, out: Path) -> TrainJob:
    return job.model_copy(update={"out": str(out)})


@contextmanager
def program(*command: str, job: TrainJob) -> Iterator["subprocess.Popen[str]"]:
    """Start a training as a process of its own, which ends with the block."""
    file = Path(job.out).with_suffix(".json")
    file.write_text(job.model_dump_json())
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # else ranks may meet where those before them did (pytorch/pytorch#135712)
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    process = subprocess.Popen(
        [sys.executable, "-m", *command, str(file)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate()


def steps(count: int, seed: int) -> list[int]:
    """Return so many steps at which to kill, not too late: who kills may be slow."""
    drawn = np.random.default_rng(seed).choice(np.arange(EVERY + 1, 3 * STEPS // 4), count, replace=False)
    return sorted(drawn.tolist())


def assert_undisturbed(disturbed: TrainJob, weights: Path, undisturbed: TrainJob) -> None:
    rows, expected = (read_rows(Path(job.out)) for job in (disturbed, undisturbed))
    assert different(rows, expected) == []
    assert len(expected) == STEPS
    last = Path(undisturbed.out) / f"checkpoint-{STEPS:09d}" / weights.name
    assert weights.read_bytes() == last.read_bytes()


def kill(training: Callable[[], list[int]], which: int) -> None:
    os.kill(training()[which], signal.SIGKILL)


def newest(folders: Iterable[str]) -> int:
    """Return the step of the last checkpoint."""
    return int(max(folders).split("-")[1])


def test_torchrun_goes_on_when_ranks_are_killed(undisturbed: dict[str, TrainJob], tmp_path: Path) -> None:
    job, out = moved(undisturbed["powersgd"], tmp_path / "out"), tmp_path / "out"
    options = ["--standalone", "--nproc-per-node=2", "--max-restarts=2", "--monitor-interval=0.1"]
    with program(
        "torch.distributed.run", *options, "-m", "benchmarks.resume_fit", "local", job=job
    ) as torchrun:

        def ranks() -> list[int]:
            return torchrun_ranks(torchrun.pid)

        for victim, step in enumerate(steps(2, seed=1)):
            wait_until(lambda step=step: told(out) >= step, torchrun)
            before = newest(folder.name for folder in out.glob("checkpoint-*"))
            fault = strike(partial(kill, ranks, victim), ranks, 2, out)
            assert before <= fault.resumed
            assert fault.resumed % EVERY == 0
            assert fault.lost < 2 * EVERY
        said, _ = torchrun.communicate()
    assert torchrun.returncode == 0, said
    assert_undisturbed(job, out / f"checkpoint-{STEPS:09d}" / "ema.safetensors", undisturbed["powersgd"])


LEGS = [(2, 15, None), (1, 25, 10), (3, 40, 20), (2, None, 40)]
"""Ranks, the step after which they are gone, and the checkpoint they went on from, before the last one there was."""


def leg(job: TrainJob, folder: Path, end: int | None, resume: int | None) -> None:
    os.environ[FOLDER] = str(folder / "seen")
    try:
        loop.train(job, Recorder(folder, stop_after=end), folder / str(resume) if resume else None)
    except (InterruptedError, RunError) as error:  # RunError: another rank was the first
        if "InterruptedError" not in repr(error):
            raise


def test_every_utterance_comes_once_an_epoch_while_ranks_come_and_go(tmp_path: Path) -> None:
    data = still(small_job(tmp_path, steps=60, checkpoint_every=5, batch_seconds=20.0))
    data["sources"] = sources(tmp_path, list(demo_corpus().labelled)[:24])
    data["model"]["encoder"]["kind"] = "benchmarks.resume_seen:Seen"
    job = TrainJob.parse(data)
    (tmp_path / "seen").mkdir()
    for ranks, end, resume in LEGS:
        on_ranks(ranks, leg, job, tmp_path, end, resume)
    found = account(job, tmp_path / "seen")
    assert found.ranks == [2, 1, 3, 2]
    assert found.epochs > 8
    assert found.is_clean, found
    # and it would be seen: a part that was not taken, and one with an utterance in the place of another
    last = sorted((tmp_path / "seen").iterdir())[-1]
    *rows, before, _ = map(json.loads, last.read_text().splitlines())
    before["utterances"][0] = before["utterances"][-1]
    last.write_text("".join(json.dumps(row) + "\n" for row in (*rows, before)))
    found = account(job, tmp_path / "seen")
    assert (found.missing, [part.step for part in found.strange]) == ([60], [59])
    assert found.skipped
    assert found.repeated


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=60),
    st.integers(1, 3000),
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 15), st.integers(0, 15)), min_size=1, max_size=12),
)
def test_an_epoch_is_dealt_once_over_whatever_ranks_there_are(
    frames: list[int], budget: int, attempts: list[tuple[int, int, int]]
) -> None:
    """An attempt is so many ranks that take some steps, of which those after the last checkpoint are taken again."""
    sampler, dealt = MixedSampler([frames], [1.0], budget, 0.3, seed=3), [0] * len(frames)
    state = sampler.state_dict()

    def take(ranks: int) -> None:
        batch = sampler.next()
        # a place in the batch that several ranks have counts for each of them as much less: see scale()
        for place in {
            place for rank in range(ranks) for place in shard(np.arange(len(batch)), rank, ranks).tolist()
        }:
            dealt[batch[place]] += 1

    for ranks, kept, lost in attempts:
        sampler = MixedSampler([frames], [1.0], budget, 0.3, seed=3)
        sampler.load_state_dict(state)
        for _ in range(kept):
            take(ranks)
        state = sampler.state_dict()
        for _ in range(lost):
            sampler.next()
    sampler.load_state_dict(state)
    while sampler.state_dict()["batch"]:  # windows are cut within epochs where there are many batches
        take(1)
    ((epoch, used, _),) = sampler.state_dict()["sources"]
    assert sorted(dealt) == [epoch] * (len(frames) - used) + [epoch + 1] * used


@pytest.mark.ray
def test_ray_goes_on_when_a_worker_is_killed_and_a_second_driver_when_the_first_is(
    ray_cluster: Connection, undisturbed: dict[str, TrainJob], tmp_path: Path
) -> None:
    from raysr.train.ray_trainer import fit

    job, out = moved(undisturbed["8bit"], tmp_path / "out"), tmp_path / "out"
    early, late = steps(2, seed=2)
    with program("benchmarks.resume_fit", "ray", "--failures=1", job=job) as driver:

        def workers() -> list[int]:
            return ray_workers(driver.pid)

        wait_until(lambda: told(out) >= early and registered(out / NAME), driver)
        before = newest(registered(out / NAME))
        fault = strike(partial(kill, workers, 1), workers, 2, out)
        assert before <= fault.resumed
        assert fault.resumed % EVERY == 0
        wait_until(lambda: told(out) >= late, driver)
        left = set(workers())
        driver.kill()
    assert outliving(left, 30) == set()
    before, rows = newest(registered(out / NAME)), len(read_rows(out))
    weights = fit(job, Scaling(min=2, max=2, cpus=1), NAME)
    assert [row["step"] for row in read_rows(out)[rows:]] == list(range(before + 1, STEPS + 1))
    assert_undisturbed(job, weights, undisturbed["8bit"])
