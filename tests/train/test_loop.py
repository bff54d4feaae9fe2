"""The training loop on real audio: it learns, resumes bit for bit, and ranks stay equal under every hook."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from raysr.corpus.demo import demo_corpus
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import open_manifest
from raysr.decode.recognise import DecodeConfig, recognise
from raysr.errors import CorpusError
from raysr.text.tokeniser import Tokeniser
from raysr.train import loop
from raysr.train.batch import BatchMaker
from raysr.train.checkpoint import save_weights
from raysr.train.job import AugmentConfig, TrainJob
from raysr.train.local import fit_local
from raysr.train.start import write_scratch
from tests.train.jobs import opened, small_job, sources, still
from tests.train.recorder import Recorder


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> TrainJob:
    return small_job(tmp_path_factory.mktemp("train"))


def test_a_resumed_training_ends_bit_equal_to_an_unbroken_one(job, tmp_path):
    unbroken = loop.train(job, Recorder(tmp_path / "a"))
    with pytest.raises(InterruptedError):
        loop.train(job, Recorder(tmp_path / "b", stop_after=3))
    resumed = loop.train(job, Recorder(tmp_path / "b"), tmp_path / "b" / "3")
    for name, weight in unbroken.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_it_learns_by_heart_what_it_is_shown(job, tmp_path):
    two = list(open_manifest(job.sources[0].manifest))[:2]
    shown = still(job) | {"sources": sources(tmp_path, two), "out": str(tmp_path)}
    shown["model"]["encoder"] |= {
        "dim": 64,
        "subsampling_channels": 16,
        "attention": {"full_context_share": 1.0},
    }
    shown["train"] |= {"steps": 250, "checkpoint_every": 250, "schedule": {"warmup_steps": 20}}
    shown["init"] = str(tmp_path / "init.safetensors")
    learner = TrainJob.parse(shown)
    tokeniser, cache = Tokeniser.load(job.tokeniser), FeatureCache(job.cache)
    write_scratch(Path(learner.init), learner.model, tokeniser.vocab_size, two, cache, seed=0)
    model = loop.train(learner, Recorder(tmp_path / "checkpoints")).model
    heard = recognise(model, tokeniser, [cache.get(u) for u in two], DecodeConfig(method="greedy"))
    assert [tokeniser.decode(list(best[0].tokens)) for best in heard] == [u.text for u in two]


def test_a_gradient_that_is_not_finite_is_skipped_and_counted(job, tmp_path):
    broken = load_file(job.init)
    broken["cmvn_mean"].fill_(float("nan"))
    save_weights(tmp_path / "broken.safetensors", broken)
    data = job.dump() | {"init": str(tmp_path / "broken.safetensors"), "out": str(tmp_path)}
    data["train"]["keep_bad_batches"] = 2
    trained = loop.train(TrainJob.parse(data), Recorder(tmp_path))
    assert trained.skipped_steps == job.train.steps
    assert all(torch.equal(broken[name], p) for name, p in trained.model.named_parameters())
    kept = [torch.load(file) for file in sorted((tmp_path / "bad-batches").iterdir())]
    assert [len(pieces) for pieces in kept] == [1, 1]
    assert set(kept[0][0]["ids"]) <= {u.id for source in job.sources for u in open_manifest(source.manifest)}


def test_an_utterance_without_text_is_named(job, tmp_path):
    bare = [u.with_text(None) for u in list(demo_corpus().labelled)[:2]]
    with pytest.raises(CorpusError, match=bare[0].id):
        loop.train(TrainJob.parse(job.dump() | {"sources": sources(tmp_path, bare)}), Recorder(tmp_path))


@pytest.mark.parametrize("weight", [0, -1, "high", True, float("inf")])
def test_a_weight_that_weighs_nothing_is_named(job, tmp_path, weight):
    one = replace(next(iter(demo_corpus().labelled)), custom={"loss_weight": weight})
    with pytest.raises(CorpusError, match=f"{one.id}: loss_weight should be a number above 0"):
        BatchMaker([one], FeatureCache(job.cache), Tokeniser.load(job.tokeniser), AugmentConfig())


def weighted(job: TrainJob, folder: Path, weigh: Callable[[int], float]) -> TrainJob:
    """Return a job of one step over a batch of everything, utterance n weighing ``weigh(n)``."""
    folder.mkdir()
    everything = [u for source in job.sources for u in open_manifest(source.manifest)]
    given = [replace(u, custom={"loss_weight": weigh(n)}) for n, u in enumerate(everything)]
    data = still(job) | {"sources": sources(folder, given)}
    data["train"] |= {"steps": 1, "batch_seconds": 1000.0, "max_padding": 0.9}
    return TrainJob.parse(data)


def test_a_loss_is_the_weighted_mean_and_a_common_weight_changes_nothing(job, tmp_path):
    plain, tenth = Recorder(tmp_path / "a"), Recorder(tmp_path / "b")
    one = loop.train(weighted(job, tmp_path / "1", lambda _: 1.0), plain).model
    same = loop.train(weighted(job, tmp_path / "2", lambda _: 0.1), tenth).model
    assert plain.losses == pytest.approx(tenth.losses)
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, same.state_dict()[name], rtol=1e-3, atol=1e-5)


def test_weights_reach_the_gradient_in_their_proportion(job, tmp_path):
    weighted_job = weighted(job, tmp_path / "w", lambda n: 1.0 + n % 3)
    model, batches = opened(weighted_job)
    model.eval()
    indices = np.arange(len(batches.utterances))
    batch = batches.make(indices, None)
    model(*batch.tensors, weights=batch.weights).total.backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    total = sum(1.0 + n % 3 for n in indices)
    for n in indices:
        one = batches.make(indices[n : n + 1], None)
        ((1.0 + n % 3) / total * model(*one.tensors).total).backward()
    for expected, gradient in zip((p.grad for p in model.parameters()), found, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("hook", ["none", "fp16"])
def test_two_ranks_train_what_one_does_and_stay_bit_equal(job, tmp_path, hook):
    # draws differ from rank to rank by design, so there are none
    data = still(job)
    data["train"] |= {"comm": {"kind": hook}, "log_every": 6, "checkpoint_every": 6}
    alone = fit_local(TrainJob.parse(data | {"out": str(tmp_path / "alone")}))
    (tmp_path / "job.json").write_text(json.dumps(data | {"out": str(tmp_path / "two")}))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            "--module",
            "tests.train.test_loop",
            str(tmp_path),
        ],
        check=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    ranks = [load_file(tmp_path / f"rank{rank}.safetensors") for rank in range(2)]
    reference = load_file(alone)
    for name in reference:
        assert torch.equal(ranks[0][name], ranks[1][name]), name
    begin, moved = load_file(job.init), _flat(reference)
    difference = (_flat(ranks[0]) - moved).norm() / (moved - _flat(begin)).norm()
    assert difference < (1e-2 if hook == "fp16" else 2e-3)


def _flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([weights[name].flatten() for name in sorted(weights)])


def _rank(folder: Path) -> None:
    from raysr.train import local

    job = TrainJob.parse(json.loads((folder / "job.json").read_text()))
    Path(job.out).mkdir(exist_ok=True)
    with local.process_group(job):
        trained = loop.train(job, local.LocalReporter(Path(job.out), job.train, job.timeout_s))
        save_weights(folder / f"rank{dist.get_rank()}.safetensors", trained.model.state_dict())


if __name__ == "__main__":
    _rank(Path(sys.argv[1]))
