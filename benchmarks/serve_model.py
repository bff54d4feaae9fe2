"""A streaming student of ten million parameters for the benchmarks of serving, in a pool of its own.

python -m benchmarks.serve_model --pool runs/benchmarks/serve/pool

Trained as the models of `benchmarks.models` are, on all of the demo's training audio with its true texts, on one core;
decoding is tuned on dev, with the recipe's language model of the training texts. The test utterances that sessions play
are heard by nobody before. Prints its size and its WER on them, live; with more than `MOST_WER` it publishes nothing.
What is there of the same training is left as it is.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.model_scores import load, tuned
from benchmarks.models import Cell, compute_features, joined, recipe, trained_cell, utterances
from raysr.corpus.demo import demo_corpus
from raysr.corpus.features import FeatureCache
from raysr.corpus.load import load_waveform
from raysr.evaluate.wer import score
from raysr.pool import Pool
from raysr.stream.events import transcript
from raysr.stream.session import Session
from raysr.stream.streaming_model import StreamingModel

SIZE = (
    "model.encoder.dim=320",
    "model.encoder.layers=4",
    "model.encoder.feed_forward=1280",
    "model.decoder.feed_forward=1024",
    "trainer.optimiser.lr=0.0008",  # at 0.002 as in the recipe a model of this size found no alignment
)
UPDATES = (1500, 2000)
NAME = "student-10m"
MOST_WER = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/models"), help="its training")
    parser.add_argument("--scale", type=float, default=1.0, help="of the updates")
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = options.work.absolute()
    compute_features(work)
    cell = Cell("serve", 1, SIZE, updates=UPDATES)
    config = recipe(cell)
    texts = [u.text or "" for u in utterances(work, "train")["short"]]
    trained = trained_cell(work, cell, options.scale)
    if (there := Pool(options.pool).latest()) is not None:
        if there.metrics.get("training") == trained.folder.name:
            print(f"{options.pool}: {there.name} is there, {_told(there.metrics)}")
            return
        raise SystemExit(f"error: {options.pool} has {there.name} of another training; remove it")
    recogniser = load(trained, config, texts)
    dev = [u for part in joined(work).dev.values() for u in part]
    decode = tuned(recogniser, config, dev, FeatureCache(work / "features", config.features))
    recogniser = replace(recogniser, config=recogniser.config.model_copy(update={"decode": decode}))
    metrics = {
        "cycle": 0,
        "training": trained.folder.name,
        "parameters": sum(p.numel() for p in recogniser.model.parameters()),
        "test_wer": word_error_rate(StreamingModel(recogniser)),
    }
    if metrics["test_wer"] > MOST_WER:
        raise SystemExit(f"error: {_told(metrics)}: at most {100 * MOST_WER:g}% are wanted")
    parts = recogniser.model, recogniser.tokeniser, recogniser.lm
    Pool(options.pool).publish(NAME, *parts, metrics, recogniser.config)
    print(f"{options.pool}: {_told(metrics)}")


def _told(metrics: Mapping[str, Any]) -> str:
    wer, size = 100 * metrics["test_wer"], metrics["parameters"] / 1e6
    return f"{size:.1f} million parameters, {wer:.1f}% WER live on the clean test set"


def word_error_rate(model: StreamingModel) -> float:
    """Return the WER of the clean test utterances, each streamed by itself."""
    spoken = list(demo_corpus().tests["clean"])
    texts = []
    for utterance in spoken:
        session = Session(model)
        texts.append(transcript(session.push(load_waveform(utterance)) + session.finish()))
        session.leave()
    rows = score([u.id for u in spoken], [u.text or "" for u in spoken], texts)
    return sum(row.words.errors for row in rows) / sum(row.words.reference for row in rows)


if __name__ == "__main__":
    main()
