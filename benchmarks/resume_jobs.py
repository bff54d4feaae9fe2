"""What is trained while workers, nodes and drivers are killed, and what a student is worth in the end."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from benchmarks.joined import training_utterances
from benchmarks.model_scores import word_errors, words
from raysr.corpus.demo import demo_corpus
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.decode.decode_config import DecodeConfig
from raysr.decode.recognise import recognise
from raysr.model.config import ModelConfig
from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser, TokeniserConfig
from raysr.train.job import SourceConfig, TrainConfig, TrainJob
from raysr.train.network.settings import NetworkConfig
from raysr.train.start import write_scratch

SMALL = 64  # utterances of the trainings that are compared bit for bit
EVERY = 50  # steps between checkpoints: seconds, as Ray Train looks for new ones once a second
SPACING = 150  # steps of a training for each fault
ELASTIC_SPACING = (
    1500  # a minute and more: so long does Ray Train train on before it looks whether it could have more
)
Options = Mapping[str, Any]


def exact_job(work: Path, faults: int) -> TrainJob:
    """Return a training with everything that has a state: errors of compression, an average, draws of all kinds."""
    train = {
        "steps": SPACING * faults + EVERY,
        "checkpoint_every": EVERY,
        "log_every": 1,
        "comm": {"kind": "powersgd", "rank": 1, "start": 20},
        "ema_decay": 0.99,
        "schedule": {"warmup_steps": 20},
        "augment": {"background": {"share": 0.3}},
    }
    encoder = {"dim": 64, "layers": 2, "heads": 4, "feed_forward": 128}
    model = {"encoder": encoder, "decoder": {"heads": 4, "feed_forward": 128}}
    return _job(work, "exact", list(demo_corpus().labelled)[:SMALL], model, train)


def elastic_job(work: Path, faults: int) -> TrainJob:
    """Return a training that learns something, and that writes down by what."""
    train = {
        "steps": 2000 + ELASTIC_SPACING * faults,
        "batch_seconds": 20.0,
        "checkpoint_every": EVERY,
        "log_every": 1,
        "optimiser": {"lr": 3e-3},
        "schedule": {"warmup_steps": 100},
        "augment": {
            "spec": {"freq_masks": 0, "time_masks": 0},
            "warp": {"tempo": 0, "frequency": 0, "level_db": 0},
        },
    }
    encoder = {"kind": "benchmarks.resume_seen:Seen", "dim": 96, "layers": 3, "heads": 4, "feed_forward": 192}
    model = {"encoder": {**encoder, "attention": {"kind": "full"}}, "ctc_weight": 1}
    return _job(work, "elastic", training_utterances(demo_corpus())["train"], model, train)


def errors_and_words(job: TrainJob, weights: Path) -> tuple[list[int], list[int]]:
    """Return the word errors of greedy decoding in each utterance of the clean test, and its words."""
    tests = list(demo_corpus().tests["clean"])
    cache = FeatureCache(Path(job.cache), job.features)
    cache.ensure(tests, os.cpu_count() or 1)
    tokeniser = Tokeniser.load(job.tokeniser)
    model = AsrModel(job.model, tokeniser.vocab_size)
    model.load_state_dict(load_file(weights))
    found = recognise(
        model.eval(), tokeniser, [cache.get(u) for u in tests], DecodeConfig(method="greedy"), None
    )
    texts = [tokeniser.decode(list(nbest[0].tokens)) if nbest else "" for nbest in found]
    return word_errors(tests, texts), words(tests)


def _job(work: Path, name: str, utterances: Sequence[Utterance], model: Options, train: Options) -> TrainJob:
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    cache = FeatureCache(work / "features")
    cache.ensure(utterances, os.cpu_count() or 1)
    tokeniser = Tokeniser.train([u.text or "" for u in utterances], TokeniserConfig(kind="char"))
    tokeniser.save(folder / "tokenizer.model")
    write_jsonl(folder / "train.jsonl", utterances)
    job = TrainJob(
        out=str(folder / "out"),
        init=str(folder / "init.safetensors"),
        tokeniser=str(folder / "tokenizer.model"),
        cache=str(work / "features"),
        sources=[SourceConfig(name=name, manifest=str(folder / "train.jsonl"))],
        model=ModelConfig.parse(model),
        train=TrainConfig.parse(train),
        network=NetworkConfig(preflight=False),
    )
    write_scratch(Path(job.init), job.model, tokeniser.vocab_size, utterances, cache, seed=0)
    return job
