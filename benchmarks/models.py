"""Encoders, attention masks, second passes and boosted phrases on the demo corpus, joined to ten seconds and more.

python -m benchmarks.models --json results/models.json

A *cell* is one model of one seed, trained with raysr's own loop in one process of one thread on all of the training
audio with its true texts: on short utterances with full context first, in which CTC soon finds an alignment, then on
joined ones with the cell's own attention. As many cells run side by side as there are cores. All have the demo's sizes,
or a like number of parameters, and as many updates:

unified         the demo's Conformer: full context and chunks of random size in training
full_only       the same, trained with full context alone
left … blstm    one change each, see ENCODERS; only the first seed
second_pass     more updates, half of the loss on the attention decoder, which reads both ways; only the first seed
unnamed         unified, trained on the utterances that hold no open names

A finished training is kept in `--work` under a key of what can change it (code of training, configuration, corpus), its
scores under one of the code that decodes, so that a second call goes on with what is missing.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.biasing import score_biasing
from benchmarks.code import ROOT, code_hash
from benchmarks.encoder_speed import real_time_factors
from benchmarks.joined import JoinedCorpus, joined_corpus, training_utterances
from benchmarks.model_report import as_tables, summarise
from benchmarks.model_scores import load, score_contexts
from benchmarks.second_pass import score_methods
from benchmarks.training import Stage, Trained, Training, train
from raysr.corpus.demo import demo_corpus
from raysr.corpus.disk import replacing
from raysr.corpus.features import FeatureCache
from raysr.corpus.utterance import Utterance
from raysr.ipl.config import RunConfig, read_config
from raysr.model.config import AttentionConfig, ModelConfig
from raysr.train.job import ScheduleConfig, TrainConfig

RECIPE = ROOT / "jobs" / "conf" / "demo.yaml"
UPDATES = (2000, 3000)  # short utterances, joined ones
SPEED_UTTERANCES = 16
ENCODERS: Mapping[str, Sequence[str]] = {
    "unified": [],
    "full_only": ["model.encoder.attention={kind: full}"],
    "left": ["model.encoder.attention={kind: left}"],
    "chunk": ["model.encoder.attention={kind: chunk, chunk: 16, left_chunks: 4}"],
    # a look-ahead of one chunk in each of four layers: with chunks of 4 about as late as chunks of 16 without it
    "flow": ["model.encoder.attention={kind: flow, chunk: 4, left_chunks: 16, right_chunks: 1}"],
    "dynamic_left": ["model.encoder.attention={kind: dynamic, dynamic_left: true}"],
    "subsampling6": ["model.encoder.subsampling=6"],
    "transformer": [
        "model.encoder.kind=transformer",
        "model.encoder.layers=5",
        "model.encoder.feed_forward=512",
    ],
    "lstm": ["model.encoder.kind=lstm", "model.encoder.layers=7"],
    "blstm": ["model.encoder.kind=blstm", "model.encoder.dim=168", "model.decoder.kind=lstm"],
}
EVERY_SEED = ("unified", "full_only")
ATTENDING = [
    "model.ctc_weight=0.5",
    "model.decoder.layers=2",
    "model.decoder.reverse_layers=1",
    "model.reverse_weight=0.3",
]
MEASURES: Mapping[str, Callable[..., dict[str, Any]]] = {
    "contexts": score_contexts,
    "methods": score_methods,
    "biasing": score_biasing,
}


@dataclass(frozen=True)
class Cell:
    """One model to train and measure.

    Attributes:
        overrides: of the recipe.
        measure: what is measured, a name of :data:`MEASURES`.
        updates: over short and over joined utterances.
        part: what it is trained on, of :class:`JoinedCorpus`.
    """

    name: str
    seed: int
    overrides: Sequence[str] = ()
    measure: str = "contexts"
    updates: Sequence[int] = UPDATES
    part: str = "train"


def cells(seeds: Sequence[int]) -> list[Cell]:
    """Return all cells, those that the others are compared with first."""
    chosen = [Cell(name, seed, ENCODERS[name]) for seed in seeds for name in EVERY_SEED]
    chosen.append(Cell("second_pass", seeds[0], ATTENDING, "methods", (2000, 8000)))
    chosen += [Cell("unnamed", seed, (), "biasing", part="unnamed") for seed in seeds]
    return chosen + [Cell(name, seeds[0], o) for name, o in ENCODERS.items() if name not in EVERY_SEED]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/models"), help="finished cells")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cells of these names alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="cells side by side")
    parser.add_argument("--scale", type=float, default=1.0, help="of the updates: 0.01 is a quick look")
    options = parser.parse_args()
    planned = [c for c in cells(options.seeds) if not options.only or c.name in options.only]
    if not planned:
        raise SystemExit(f"error: --only knows {', '.join(dict.fromkeys(c.name for c in cells([1])))}")
    work = options.work.absolute()
    compute_features(work)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, context, torch.set_num_threads, (1,)) as workers:
        running = [workers.submit(run_cell, work, cell, options.scale) for cell in planned]
        scored = {
            (c.name, c.seed): json.loads(r.result().read_text())
            for c, r in zip(planned, running, strict=True)
        }
    results = summarise(scored) | {"speed": speeds(work, planned, options.scale)}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(as_tables(results))


def compute_features(work: Path) -> None:
    """Write the joined corpus and fill the feature cache that all cells share."""
    cache = FeatureCache(work / "features", recipe(Cell("unified", 1)).features)
    cache.ensure([*utterances(work, "train")["short"], *joined(work)], os.cpu_count() or 1)


def joined(work: Path) -> JoinedCorpus:
    """Return the joined corpus, which is kept with the cells."""
    key = hashlib.sha256((code_hash(["benchmarks.joined"]) + demo_corpus().hash).encode()).hexdigest()
    return joined_corpus(demo_corpus(), work / f"joined-{key[:16]}")


def utterances(work: Path, part: str) -> Mapping[str, list[Utterance]]:
    """Return the training utterances of a part of :class:`JoinedCorpus`, ``short`` and ``joined``."""
    return {"short": training_utterances(demo_corpus())[part], "joined": getattr(joined(work), part)}


def recipe(cell: Cell) -> RunConfig:
    """Return the demo's recipe with the changes of a cell."""
    return read_config(RECIPE, [f"run.dir={cell.name}", f"run.seed={cell.seed}", *cell.overrides])


def training_of(cell: Cell, config: RunConfig, scale: float) -> Training:
    """Return what a cell trains: at a constant rate over short utterances, at a falling one over joined ones."""
    options = {name: config.trainer.options[name] for name in TrainConfig.model_fields}
    base = TrainConfig.parse(options, cell.name)
    short, long = (max(2, round(scale * updates)) for updates in cell.updates)
    first = {"steps": short, "schedule": ScheduleConfig(kind="constant", warmup_steps=150)}
    stages = [
        Stage("short", seeing_all(config.model), base.model_copy(update=first)),
        Stage("joined", config.model, base.model_copy(update={"steps": long})),
    ]
    return Training(cell.seed, config.tokenizer, config.features, stages)


def seeing_all(model: ModelConfig) -> ModelConfig:
    """Return the model with the whole utterance in its view, and the same weights; ``left``, causal, stays as it is."""
    if model.encoder.attention.kind in ("full", "left"):
        return model
    attention = AttentionConfig(kind="dynamic", full_context_share=1.0)
    return model.model_copy(update={"encoder": model.encoder.model_copy(update={"attention": attention})})


def run_cell(work: Path, cell: Cell, scale: float) -> Path:
    """Return the file with the scores of a cell, training and measuring what is missing."""
    started = time.monotonic()
    config = recipe(cell)
    trained = trained_cell(work, cell, scale)
    measure = MEASURES[cell.measure]
    key = hashlib.sha256((code_hash([measure.__module__]) + json.dumps(config.dump())).encode()).hexdigest()
    scores = trained.folder / f"{cell.measure}-{key[:16]}.json"
    if not scores.exists():
        texts = [u.text or "" for u in utterances(work, cell.part)["short"]]
        recogniser = load(trained, config, texts)
        found = measure(recogniser, config, joined(work), work / "features")
        with replacing(scores) as file:
            file.write(json.dumps(found).encode())
    print(f"{cell.name} {cell.seed}: {(time.monotonic() - started) / 60:.1f} min", flush=True)
    return scores


def trained_cell(work: Path, cell: Cell, scale: float) -> Trained:
    """Return the finished training of a cell."""
    training = training_of(cell, recipe(cell), scale)
    folder = work / f"{cell.name}-{cell.seed}-{training.key()}"
    return train(training, folder, utterances(work, cell.part), work / "features")


def speeds(work: Path, planned: Sequence[Cell], scale: float) -> dict[str, dict[str, float]]:
    """Return real-time factors of the first seed's encoders on one core, when nothing else runs."""
    chosen = {cell.name: cell for cell in reversed(planned) if cell.measure == "contexts"}
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    models = {
        name: load(trained_cell(work, cell, scale), recipe(cell), [""]).model for name, cell in chosen.items()
    }
    tests = joined(work).tests["clean"][:SPEED_UTTERANCES]
    cache = FeatureCache(work / "features", recipe(Cell("unified", 1)).features)
    return real_time_factors(models, [cache.get(u) for u in tests])


if __name__ == "__main__":
    main()
