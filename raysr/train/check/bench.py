"""What the checks work with: a device, a corner of the demo corpus, and a student that knows some of it by heart."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import Optimizer

from raysr.corpus.demo import demo_corpus
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.model.config import DecoderConfig, EncoderConfig, ModelConfig
from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser
from raysr.train.batch import Batch, BatchMaker
from raysr.train.exchange.alone import Alone
from raysr.train.job import AugmentConfig, OptimiserConfig, TrainJob
from raysr.train.loss import Objective
from raysr.train.optim import build_optimiser
from raysr.train.precision import Precision, choose
from raysr.train.start import write_scratch
from raysr.train.step import Stepper

LR, WARMUP = 2e-3, 20


@dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
        by_heart: utterances that the student learns.
        dim, layers: of the student.
        learning: steps of learning them.
        steps: in each type of autocast.
        corpus: utterances of the training through the loop.
        training: what that job has of its own: its model and its options.
        precisions: of that training, one after the other.
        memory: bytes beyond a student at rest in which the memory finder has to make do.
    """

    by_heart: int
    dim: int
    layers: int
    learning: int
    steps: int
    corpus: int
    training: dict[str, Any]
    precisions: tuple[str, ...]
    memory: int


SHORT = Size(
    by_heart=4,
    dim=48,
    layers=2,
    learning=130,
    steps=24,
    corpus=40,
    training={
        "model": {
            "encoder": {"dim": 48, "layers": 2, "heads": 2, "feed_forward": 96, "subsampling_channels": 16}
        },
        "train": {
            "steps": 24,
            "log_every": 8,
            "batch_seconds": 15.0,
            "optimiser": {"lr": 2e-3},
            "schedule": {"warmup_steps": 10},
        },
    },
    precisions=("auto",),
    memory=60 << 20,
)
"""Seconds on a CPU."""

FULL = Size(
    by_heart=8,
    dim=128,
    layers=4,
    learning=300,
    steps=60,
    corpus=310,
    training={
        "model": {"encoder": {"dim": 256, "layers": 12, "heads": 4, "feed_forward": 1024}},
        "train": {
            "steps": 200,
            "log_every": 25,
            "batch_seconds": 60.0,
            "optimiser": {"lr": 5e-4},
            "schedule": {"warmup_steps": 50},
        },
    },
    precisions=("auto", "fp16"),
    memory=1 << 30,
)
"""Minutes on a GPU; the training is of a student of 20 million parameters."""


class Bench:
    """Everything that several checks share; what is dear is made once, when it is first asked for.

    Args:
        folder: for what is written.
        device: that is checked; a CUDA device with its index.
        size: of everything.
    """

    def __init__(self, folder: Path, device: torch.device, size: Size) -> None:
        self.folder, self.device, self.size = folder, device, size
        everything = demo_corpus().labelled.sample(size.corpus)
        self.corpus: Sequence[Utterance] = sorted(everything, key=lambda u: (u.duration, u.id))
        self.tokeniser = Tokeniser.train([u.text or "" for u in self.corpus])
        self.cache = FeatureCache(folder / "features")
        self.cache.ensure(self.corpus, workers=os.cpu_count() or 1)
        self.by_heart = self.corpus[:: len(self.corpus) // size.by_heart][: size.by_heart]
        self.config = ModelConfig(
            encoder=EncoderConfig(
                dim=size.dim, layers=size.layers, heads=2, feed_forward=2 * size.dim, dropout=0
            ),
            decoder=DecoderConfig(heads=2, feed_forward=2 * size.dim, dropout=0),
        )

    @cached_property
    def batch(self) -> Batch:
        """All that is learned by heart, as it is."""
        maker = BatchMaker(self.by_heart, self.cache, self.tokeniser, AugmentConfig())
        return maker.make(np.arange(len(self.by_heart)), None)

    @property
    def features(self) -> list[Tensor]:
        """Of what is learned by heart, (T, mel_bins) each, on the CPU."""
        return [self.cache.get(utterance) for utterance in self.by_heart]

    def fresh(self, config: ModelConfig | None = None) -> AsrModel:
        """Return a student that knows nothing, on the CPU, ready to learn: always the same one."""
        config = config or self.config
        model = AsrModel(config, self.tokeniser.vocab_size)
        model.load_state_dict(load_file(self._scratch(config)))
        return model.train()

    @cached_property
    def student(self) -> AsrModel:
        """A student that has learned ``by_heart`` on the device, in float32; on the CPU, ready to be asked."""
        model = self.fresh().to(self.device)
        learning = Learning(model, self.batch, choose("fp32", self.device))
        for _ in range(self.size.learning):
            learning.step()
        return model.cpu().eval()

    def job(self, precision: str = "auto") -> TrainJob:
        """Return a training over all of the corpus."""
        write_jsonl(self.folder / "corpus.jsonl", self.corpus)
        self.tokeniser.save(self.folder / "tokenizer.model")
        own = self.size.training
        return TrainJob.parse(
            {
                "out": str(self.folder / f"training-{precision}"),
                "init": str(self._scratch(ModelConfig.parse(own["model"]))),
                "tokeniser": str(self.folder / "tokenizer.model"),
                "cache": str(self.folder / "features"),
                "sources": [{"name": "demo", "manifest": str(self.folder / "corpus.jsonl")}],
                "model": own["model"],
                "train": {
                    **own["train"],
                    "precision": precision,
                    "checkpoint_every": own["train"]["steps"],
                    "reading": {"load_to_memory": True},
                },
            }
        )

    def _scratch(self, config: ModelConfig) -> Path:
        told = hashlib.sha256(json.dumps(config.dump()).encode()).hexdigest()
        path = self.folder / f"fresh-{told[:12]}.safetensors"
        if not path.exists():
            write_scratch(path, config, self.tokeniser.vocab_size, self.corpus, self.cache, seed=0)
        return path


class Learning:
    """Steps of one rank over one batch.

    Args:
        model: that learns, where it learns.
        batch: of every step.
        precision: of its forward pass.
        optimiser: of its parameters; None: that of a training.
    """

    def __init__(
        self, model: AsrModel, batch: Batch, precision: Precision, optimiser: Optimizer | None = None
    ) -> None:
        self.batch = batch
        self.objective = Objective(next(model.parameters()).device, precision, seed=0, rank=0, ranks=1)
        optimiser = optimiser or build_optimiser(model, OptimiserConfig(lr=LR))
        self.stepper = Stepper(model, Alone(model), optimiser, _rate, precision.scaler, clip=5.0)

    def step(self) -> float:
        """Take a step and return the loss before it."""
        loss = self.objective.of(self.batch, 1 / len(self.batch.weights), self.stepper.steps)
        self.stepper([loss])
        means, _ = self.objective.means()
        return float(means[0])


def _rate(step: int) -> float:
    return LR * min(1.0, (step + 1) / WARMUP)
