"""The training loop on real audio: it learns, resumes bit for bit, and ranks stay equal under every hook."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from raysr.corpus.demo import demo_corpus
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import open_manifest, write_jsonl
from raysr.decode.recognise import DecodeConfig, recognise
from raysr.errors import CorpusError
from raysr.text.tokeniser import Tokeniser
from raysr.train import loop
from raysr.train.job import TrainJob
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
    write_jsonl(folder / "pseudo.jsonl", utterances[12:])
    job = TrainJob.parse(
        {
            "out": str(folder / "out"),
            "init": str(folder / "init.safetensors"),
            "tokeniser": str(folder / "tokenizer.model"),
            "cache": str(folder / "cache"),
            "labelled": str(folder / "labelled.jsonl"),
            "pseudo": str(folder / "pseudo.jsonl"),
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
    two = list(open_manifest(job.labelled))[:2]
    write_jsonl(tmp_path / "two.jsonl", two)
    shown = _still(job) | {"labelled": str(tmp_path / "two.jsonl"), "pseudo": None, "out": str(tmp_path)}
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
    write_jsonl(tmp_path / "bare.jsonl", bare)
    with pytest.raises(CorpusError, match=bare[0].id):
        loop.train(job.model_copy(update={"labelled": str(tmp_path / "bare.jsonl")}), Recorder(tmp_path))


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
