"""What the measurement of exchanges trains: a student of 25 million parameters, on utterances of ten seconds each."""

import hashlib
import json
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.code import code_hash
from benchmarks.joined import HISS, RATE
from raysr.audio.encode import wav_bytes
from raysr.corpus.demo import demo_corpus
from raysr.corpus.features import FeatureCache
from raysr.corpus.load import load_waveform
from raysr.corpus.manifest import open_manifest, write_jsonl
from raysr.corpus.shards import write_shards
from raysr.corpus.utterance import Utterance
from raysr.model.config import AttentionConfig, DecoderConfig, EncoderConfig, ModelConfig
from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser, TokeniserConfig
from raysr.train.job import SourceConfig, TrainConfig, TrainJob
from raysr.train.network.payload import numbers
from raysr.train.network.settings import NetworkConfig
from raysr.train.start import write_scratch

SECONDS = 10.0
UTTERANCES = 64
RANK_SECONDS = 20.0  # of audio, a rank and step
MODEL = ModelConfig(
    encoder=EncoderConfig(
        dim=384,
        layers=6,
        heads=6,
        feed_forward=1536,
        kernel=15,
        subsampling=8,  # as Fast Conformer's (Rekesh et al. 2023, arXiv 2305.05084)
        attention=AttentionConfig(kind="full"),  # chunks of random size would make some steps longer
    ),
    decoder=DecoderConfig(layers=2, heads=6, feed_forward=1536),
)
TOKENISER = TokeniserConfig(kind="bpe", vocab_size=500)  # characters would need more frames than are left


@dataclass(frozen=True)
class Material:
    """A folder with all that trainings have in common."""

    folder: Path

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Those of the student's trained parameters."""
        student = AsrModel(MODEL, Tokeniser.load(self.folder / "tokenizer.model").vocab_size)
        return [tuple(p.shape) for p in student.parameters() if p.requires_grad]

    @property
    def megabytes(self) -> float:
        """Of all of them in float32."""
        return 4e-6 * numbers(self.shapes)

    def job(
        self, out: Path, steps: int, ranks: int, comm: Mapping[str, Any], optimiser: Mapping[str, Any]
    ) -> TrainJob:
        """Return a training that reports every step, and writes one checkpoint, its last."""
        train = {
            "steps": steps,
            "batch_seconds": ranks * RANK_SECONDS,
            "optimiser": {"lr": 1e-4, **optimiser},
            "schedule": {"kind": "constant", "warmup_steps": 0},
            "precision": "fp32",
            "comm": dict(comm),
            "checkpoint_every": steps,
            "log_every": 1,
        }
        return TrainJob(
            out=str(out),
            init=str(self.folder / "init.safetensors"),
            tokeniser=str(self.folder / "tokenizer.model"),
            cache=str(self.folder / "features"),
            sources=[SourceConfig(name="train", manifest=str(self.folder / "train.jsonl"))],
            model=MODEL,
            train=TrainConfig.parse(train),
            network=NetworkConfig(interface="eth0", preflight=False),  # that has a cell of its own,
        )


def material(work: Path) -> Material:
    """Return what is below an absolute ``work``, writing it where it is missing."""
    parts = [code_hash([__name__]), demo_corpus().hash, MODEL.dump(), TOKENISER.dump()]
    folder = work / f"material-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}"
    if (folder / "init.safetensors").exists():
        return Material(folder)
    shutil.rmtree(folder, ignore_errors=True)
    write_shards(folder / "train", equally_long(demo_corpus().labelled, UTTERANCES))
    utterances = list(open_manifest(folder / "train"))
    write_jsonl(folder / "train.jsonl", utterances)
    tokeniser = Tokeniser.train([u.text or "" for u in demo_corpus().labelled], TOKENISER)
    tokeniser.save(folder / "tokenizer.model")
    cache = FeatureCache(folder / "features")
    cache.ensure(utterances)
    write_scratch(folder / ".init", MODEL, tokeniser.vocab_size, utterances, cache, seed=0)
    (folder / ".init").rename(folder / "init.safetensors")
    return Material(folder)


def equally_long(spoken: Iterable[Utterance], count: int) -> Iterator[tuple[Utterance, bytes]]:
    """Yield so many utterances of exactly ten seconds and their WAV files: several joined, and quiet noise after."""
    length, number = round(RATE * SECONDS), 0
    pieces: list[np.ndarray] = []
    texts: list[str] = []
    for utterance in spoken:
        samples = load_waveform(utterance)
        if pieces and sum(map(len, pieces)) + len(samples) > length:
            name = f"ten-{number:03d}"
            draws = np.random.default_rng(zlib.crc32(name.encode()))
            rest = length - sum(map(len, pieces))
            whole = np.concatenate([*pieces, draws.normal(scale=HISS, size=max(0, rest))])[:length]
            yield Utterance(name, "", SECONDS, text=" ".join(texts)), wav_bytes(whole)
            number += 1
            if number == count:
                return
            pieces, texts = [], []
        pieces.append(samples)
        texts.append(utterance.text or "")
