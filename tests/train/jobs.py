"""A small training over a few utterances of the demo corpus, for tests of the loop."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from raysr.corpus.demo import demo_corpus
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser
from raysr.train.batch import BatchMaker
from raysr.train.data import open_data
from raysr.train.job import TrainJob
from raysr.train.start import write_scratch

MODEL = {
    "encoder": {"dim": 32, "layers": 1, "heads": 2, "feed_forward": 32, "subsampling_channels": 4},
    "decoder": {"heads": 2, "feed_forward": 32},
}


def small_job(folder: Path, **train: Any) -> TrainJob:
    """Return a job of two sources of twelve utterances each, with weights to start from, in ``folder``."""
    utterances = list(demo_corpus().labelled)[:24]
    cache = FeatureCache(folder / "cache")
    assert cache.ensure(utterances) == {}
    tokeniser = Tokeniser.train([u.text or "" for u in utterances])
    tokeniser.save(folder / "tokenizer.model")
    write_jsonl(folder / "labelled.jsonl", utterances[:12])
    pseudo = [replace(u, custom={"loss_weight": 0.25 + n / 12}) for n, u in enumerate(utterances[12:])]
    write_jsonl(folder / "pseudo.jsonl", pseudo)
    options = {"steps": 6, "checkpoint_every": 3, "log_every": 1, "schedule": {"warmup_steps": 2}}
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
            "train": options | train,
        }
    )
    write_scratch(Path(job.init), job.model, tokeniser.vocab_size, utterances, cache, seed=0)
    return job


def changed(job: TrainJob, **train: Any) -> TrainJob:
    """Return the job with other options of its training."""
    data = job.dump()
    data["train"] |= train
    return TrainJob.parse(data)


def still(job: TrainJob) -> dict[str, Any]:
    """Return the job without dropout and augmentation, as plain data to change further."""
    data = job.dump()
    data["model"]["encoder"] |= {"dropout": 0.0}
    data["model"]["decoder"] |= {"dropout": 0.0}
    data["train"]["augment"] = {
        "spec": {"freq_masks": 0, "time_masks": 0},
        "warp": {"tempo": 0, "frequency": 0, "level_db": 0},
    }
    return data


def sources(folder: Path, utterances: Sequence[Utterance]) -> list[dict[str, Any]]:
    """Write the utterances and return a job's sources of them."""
    write_jsonl(folder / "source.jsonl", utterances)
    return [{"name": "labelled", "manifest": str(folder / "source.jsonl")}]


def opened(job: TrainJob) -> tuple[AsrModel, BatchMaker]:
    """Return a job's model and what makes its batches."""
    tokeniser = Tokeniser.load(job.tokeniser)
    model = AsrModel(job.model, tokeniser.vocab_size)
    model.load_state_dict(load_file(job.init))
    with open_data(job, model, tokeniser, print, print, print) as data:
        return model, data.batches
