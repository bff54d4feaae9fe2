"""What the measurement of training trains: the demo's student on the demo's speech, in shards as users have them."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arms import RECIPE
from benchmarks.code import code_hash
from raysr.audio.encode import flac_bytes, wav_bytes
from raysr.corpus.demo import demo_corpus
from raysr.corpus.features import FeatureCache
from raysr.corpus.load import load_waveform
from raysr.corpus.manifest import open_manifest, write_jsonl
from raysr.corpus.shards import write_shards
from raysr.ipl.config import RunConfig, read_config
from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser
from raysr.train.job import SourceConfig, TrainConfig, TrainJob
from raysr.train.start import write_scratch

FORMS: Mapping[str, Callable[[np.ndarray], bytes]] = {"flac": flac_bytes, "wav": wav_bytes}
LABELLED, ALL = "labelled", "all"
SEED = 1


@dataclass(frozen=True)
class Material:
    """A folder with all that trainings have in common."""

    folder: Path

    @property
    def features(self) -> Path:
        """The feature cache, with those of the labelled FLAC files in it."""
        return self.folder / "features"

    @property
    def parameters(self) -> int:
        """How many the student has."""
        student = AsrModel(recipe().model, Tokeniser.load(self.folder / "tokenizer.model").vocab_size)
        return sum(p.numel() for p in student.parameters() if p.requires_grad)

    def manifest(self, form: str, part: str) -> Path:
        """Return what lists the files of a form: the labelled ones, or all."""
        return self.folder / f"{form}-{part}.jsonl"

    def hours(self, part: str) -> float:
        """Return how much audio a part has."""
        return sum(u.duration for u in open_manifest(self.manifest("flac", part))) / 3600

    def job(self, out: Path, manifest: Path, cache: Path, options: Mapping[str, Any]) -> TrainJob:
        """Return a training as the demo's recipe has it but for some ``options``."""
        asked = recipe()
        return TrainJob(
            out=str(out),
            init=str(self.folder / "init.safetensors"),
            tokeniser=str(self.folder / "tokenizer.model"),
            cache=str(cache),
            sources=[SourceConfig(name="train", manifest=str(manifest))],
            features=asked.features,
            model=asked.model,
            train=TrainConfig.parse({**training_options(asked), **options}),
            seed=SEED,
        )


def recipe() -> RunConfig:
    """Return the demo's."""
    return read_config(RECIPE)


def training_options(asked: RunConfig) -> dict[str, Any]:
    """Return those of a recipe's trainer that are of the training itself."""
    given = asked.trainer.options
    return {name: given[name] for name in TrainConfig.model_fields if name in given}


def material(work: Path) -> Material:
    """Return what is below an absolute ``work``, writing it where it is missing."""
    parts = [code_hash([__name__], [RECIPE]), demo_corpus().hash]
    made = Material(work / f"material-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}")
    if (made.folder / "init.safetensors").exists():
        return made
    shutil.rmtree(made.folder, ignore_errors=True)
    corpus, asked = demo_corpus(), recipe()
    spoken = [*corpus.labelled, *(replace(u, text=corpus.truth[u.id]) for u in corpus.unlabelled)]
    count = len(corpus.labelled)
    for form, encode in FORMS.items():
        # what is mixed in is in the files: a training reads them and mixes nothing
        written = ((replace(u, mix=None), encode(load_waveform(u))) for u in spoken)
        write_shards(made.folder / form, written)
        everything = list(open_manifest(made.folder / form))
        write_jsonl(made.manifest(form, ALL), everything)
        write_jsonl(made.manifest(form, LABELLED), everything[:count])
    utterances = list(open_manifest(made.manifest("flac", LABELLED)))
    tokeniser = Tokeniser.train([u.text or "" for u in spoken], asked.tokenizer)
    tokeniser.save(made.folder / "tokenizer.model")
    cache = FeatureCache(made.features, asked.features)
    cache.ensure(utterances)
    write_scratch(made.folder / ".init", asked.model, tokeniser.vocab_size, utterances, cache, SEED)
    (made.folder / ".init").rename(made.folder / "init.safetensors")
    return made
