"""Training one model of a comparison, in stages, by the product's own loop in this process; it can be resumed."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.code import code_hash
from raysr.audio.fbank import FbankConfig
from raysr.corpus.demo import demo_corpus
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.model.config import ModelConfig
from raysr.text.tokeniser import Tokeniser, TokeniserConfig
from raysr.train.job import SourceConfig, TrainConfig, TrainJob
from raysr.train.local import fit_local
from raysr.train.start import write_scratch

CODE = ("benchmarks.training", "benchmarks.joined")


@dataclass(frozen=True)
class Stage:
    """A training over one set of utterances, ``data`` being its name, that goes on from the stage before.

    Models may differ from stage to stage in what they attend to, not in their weights' names and shapes.
    """

    data: str
    model: ModelConfig
    train: TrainConfig


@dataclass(frozen=True)
class Training:
    """What decides the weights of a model, beside the code and the corpus."""

    seed: int
    tokeniser: TokeniserConfig
    features: FbankConfig
    stages: Sequence[Stage]

    def key(self) -> str:
        """Return a hash of the code, the corpus and all of this."""
        stages = [(stage.data, stage.model.dump(), stage.train.dump()) for stage in self.stages]
        parts = [code_hash(CODE), demo_corpus().hash, self.seed, self.tokeniser.dump(), self.features.dump()]
        return hashlib.sha256(json.dumps([*parts, stages], sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Trained:
    """The folder of a training."""

    folder: Path

    @property
    def weights(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def tokeniser(self) -> Path:
        return self.folder / "tokenizer.model"


def train(training: Training, folder: Path, data: Mapping[str, Sequence[Utterance]], cache: Path) -> Trained:
    """Return the finished training in ``folder``, carrying out what is left of it.

    Args:
        training: what is trained.
        folder: of this training alone.
        data: utterances by name, with texts, and with features in ``cache``.
        cache: the feature cache's folder.
    """
    trained = Trained(folder)
    if trained.weights.exists():
        return trained
    folder.mkdir(parents=True, exist_ok=True)
    begin = training.stages[0]
    first = data[begin.data]
    if not trained.tokeniser.exists():
        Tokeniser.train([u.text or "" for u in first], training.tokeniser).save(trained.tokeniser)
    weights = folder / "init.safetensors"
    if not weights.exists():
        vocab_size = Tokeniser.load(trained.tokeniser).vocab_size
        features = FeatureCache(cache, training.features)
        write_scratch(weights, begin.model, vocab_size, first, features, training.seed)
    for number, stage in enumerate(training.stages):
        out = folder / f"stage-{number}"
        write_jsonl(folder / f"{stage.data}.jsonl", data[stage.data])
        job = TrainJob(
            out=str(out.absolute()),
            init=str(weights.absolute()),
            tokeniser=str(trained.tokeniser.absolute()),
            cache=str(cache.absolute()),
            sources=[
                SourceConfig(name=stage.data, manifest=str((folder / f"{stage.data}.jsonl").absolute()))
            ],
            features=training.features,
            model=stage.model,
            train=stage.train,
            seed=training.seed + number,
        )
        weights = fit_local(job)
    shutil.copy(weights, folder / ".weights")
    (folder / ".weights").rename(trained.weights)
    for checkpoint in folder.glob("stage-*/checkpoint-*"):
        shutil.rmtree(checkpoint)
    return trained
