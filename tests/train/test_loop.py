"""The training loop on real audio: it learns, resumes bit for bit, and ranks stay equal under every hook."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from raysr.corpus.demo import demo_corpus
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import open_manifest, write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.decode.recognise import DecodeConfig, recognise
from raysr.errors import CorpusError
from raysr.text.tokeniser import Tokeniser
from raysr.train import loop
from raysr.train.batch import BatchMaker
from raysr.train.job import AugmentConfig, TrainJob
from raysr.train.local import fit_local
from raysr.train.start import write_scratch

MODEL = {
    "encoder": {"dim": 32, "layers": 1, "heads": 2, "feed_forward": 32, "subsampling_channels": 4},
    "decoder": {"heads": 2, "feed_forward": 32},
}


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> TrainJob:
    folder = tmp_path_factory.mktemp("train")
    utterances = list(demo_corpus().labelled)[:24]
    cache = FeatureCache(folder / "cache")
    assert cache.ensure(utterances) == {}
    tokeniser = Tokeniser.train([u.text or "" for u in utterances])
    tokeniser.save(folder / "tokenizer.model")
    write_jsonl(folder / "labelled.jsonl", utterances[:12])
    pseudo = [replace(u, custom={"loss_weight": 0.25 + n / 12}) for n, u in enumerate(utterances[12:])]
    write_jsonl(folder / "pseudo.jsonl", pseudo)
    job = TrainJob.parse(
        {
            "out": str(folder / "out"),
            "init": str(folder / "init.safetensors"),
            "tokeniser": str(folder / "tokenizer.model"),
            "cache": str(folder / "cache"),
            "sources": [
                {"name": "labelled", "manifest": str(folder / "labelled.jsonl"), "share": 0.3},
                {"name": "pseudo", "manifest": str(folder / "pseudo.jsonl"), "share": 0.7},
            ],
            "model": MODEL,
            "train": {"steps": 6, "checkpoint_every": 3, "log_every": 1, "schedule": {"warmup_steps": 2}},
        }
    )
    write_scratch(Path(job.init), job.model, tokeniser.vocab_size, utterances, cache, seed=0)
    return job


@dataclass
class Recorder:
    """Keeps every checkpoint and what was measured; stops the training after a step, as a crash would."""

    folder: Path
    stop_after: int | None = None
    losses: list[float] = field(default_factory=list)

    def metrics(self, metrics: loop.StepMetrics) -> None:
        self.losses.append(metrics.loss)

    def checkpoint(self, step, write) -> None:
        folder = self.folder / str(step)
        folder.mkdir(parents=True)
        write(folder)
        if step == self.stop_after:
            raise InterruptedError


def test_a_resumed_training_ends_bit_equal_to_an_unbroken_one(job, tmp_path):
    unbroken = loop.train(job, Recorder(tmp_path / "a"))
    with pytest.raises(InterruptedError):
        loop.train(job, Recorder(tmp_path / "b", stop_after=3))
    resumed = loop.train(job, Recorder(tmp_path / "b"), tmp_path / "b" / "3")
    for name, weight in unbroken.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_it_learns_by_heart_what_it_is_shown(job, tmp_path):
    two = list(open_manifest(job.sources[0].manifest))[:2]
    shown = _still(job) | {"sources": sources(tmp_path, two), "out": str(tmp_path)}
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
    training = loop.Training(job, torch.device("cpu"))
    before = {name: p.clone() for name, p in training.model.named_parameters()}
    with torch.no_grad():
        training.model.cmvn_mean.fill_(float("nan"))
    training.run(Recorder(tmp_path))
    assert training.skipped_steps == job.train.steps
    assert all(torch.equal(before[name], p) for name, p in training.model.named_parameters())


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
    data = _still(job) | {"sources": sources(folder, given)}
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
    training = loop.Training(weighted_job, torch.device("cpu"))
    training.model.eval()
    indices = np.arange(len(training.batches.utterances))
    batch = training.batches.make(indices, torch.Generator())
    training.model(*batch.tensors, weights=batch.weights).total.backward()
    found = [p.grad.clone() for p in training.model.parameters()]
    training.model.zero_grad()
    total = sum(1.0 + n % 3 for n in indices)
    for n in indices:
        one = training.batches.make(indices[n : n + 1], torch.Generator())
        ((1.0 + n % 3) / total * training.model(*one.tensors).total).backward()
    for expected, gradient in zip((p.grad for p in training.model.parameters()), found, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)


def sources(folder: Path, utterances: Sequence[Utterance]) -> list[dict[str, Any]]:
    """Write the utterances and return a job's sources of them."""
    write_jsonl(folder / "source.jsonl", utterances)
    return [{"name": "labelled", "manifest": str(folder / "source.jsonl")}]


@pytest.mark.parametrize("hook", ["none", "fp16"])
def test_two_ranks_train_what_one_does_and_stay_bit_equal(job, tmp_path, hook):
    # draws differ from rank to rank by design, so there are none
    still = _still(job)
    still["train"] |= {"comm": {"hook": hook}, "log_every": 6, "checkpoint_every": 6}
    alone = fit_local(TrainJob.parse(still | {"out": str(tmp_path / "alone")}))
    (tmp_path / "job.json").write_text(json.dumps(still | {"out": str(tmp_path / "two")}))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            __file__,
            str(tmp_path),
        ],
        check=True,
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


def _still(job: TrainJob) -> dict[str, Any]:
    """Return the job without dropout and augmentation, as plain data to change further."""
    still = job.dump()
    still["model"]["encoder"] |= {"dropout": 0.0}
    still["model"]["decoder"] |= {"dropout": 0.0}
    still["train"]["augment"] = {
        "spec": {"freq_masks": 0, "time_masks": 0},
        "warp": {"tempo": 0, "frequency": 0, "level_db": 0},
    }
    return still


def _rank(folder: Path) -> None:
    from raysr.train import local
    from raysr.train.checkpoint import save_weights

    job = TrainJob.parse(json.loads((folder / "job.json").read_text()))
    Path(job.out).mkdir(exist_ok=True)
    with local.process_group():
        training = loop.train(job, local.LocalReporter(Path(job.out)))
        save_weights(folder / f"rank{training.rank}.safetensors", training.model.state_dict())


if __name__ == "__main__":
    _rank(Path(sys.argv[1]))
