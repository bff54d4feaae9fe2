"""Tokenisers for speech that switches languages: which one makes the fewest mixed errors.

python -m benchmarks.code_switching --seeds 1 2 3 --json results/code_switching.json

English, Mandarin and sentences with both (:mod:`benchmarks.two_languages`), spoken by voices that no other part has.
One model a tokeniser and seed, with the demo's sizes and the same updates; decoded greedily and by the beam without a
language model, so that no text beside the transcripts of the training is known. Mixed error rate: Chinese characters
and English words (see raysr/evaluate/mixed.py), over all test sentences, those that switch, and those in one language.

fewer_than  of each other tokeniser: the share of its errors that ``mixed`` does not make, over all sentences, with its
            paired 95% interval (utterances drawn, all seeds of one together)

Finished trainings are kept in `--work`. Needs `raysr[voices]`.
"""

import argparse
import json
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.conditions import saved
from benchmarks.models import RECIPE
from benchmarks.training import Stage, Training, train
from benchmarks.two_languages import two_languages
from raysr.corpus.features import FeatureCache
from raysr.corpus.utterance import Utterance
from raysr.decode.recognise import recognise
from raysr.evaluate.mixed import mixed_counts
from raysr.evaluate.wer import score
from raysr.ipl.config import RunConfig, read_config
from raysr.model.model import AsrModel
from raysr.text.tokeniser import Tokeniser
from raysr.train.job import TrainConfig

TOKENISERS: Mapping[str, str] = {
    "mixed": "{kind: mixed, vocab_size: 200}",
    "char": "{kind: char}",
    "bpe": "{kind: bpe, vocab_size: 600}",
    "byte_bpe": "{kind: byte_bpe, vocab_size: 600}",
}
OURS = "mixed"
METHODS = ("greedy", "beam")
UPDATES = 4000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/code_switching"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="models side by side")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of updates and sentences: 0.01 is a quick look"
    )
    options = parser.parse_args()
    work = options.work.absolute()
    parts = two_languages(work / f"speech-{options.scale:g}", options.scale)
    FeatureCache(work / "features").ensure([*parts["train"], *parts["test"]], os.cpu_count() or 1)
    cells = [(name, seed) for seed in options.seeds for name in TOKENISERS]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, context, torch.set_num_threads, (1,)) as workers:
        running = {cell: workers.submit(run_cell, work, *cell, options.scale) for cell in cells}
        made = {cell: one.result() for cell, one in running.items()}
    results = summarise(made, options.seeds, parts["test"])
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(as_table(results))


def recipe(name: str, seed: int) -> RunConfig:
    """Return the demo's recipe with a tokeniser."""
    return read_config(RECIPE, [f"run.dir={name}", f"run.seed={seed}", f"tokenizer={TOKENISERS[name]}"])


def run_cell(work: Path, name: str, seed: int, scale: float) -> dict[str, Any]:
    """Train a model, and return what it recognises of the test sentences, and the size of its vocabulary."""
    config = recipe(name, seed)
    options = {option: config.trainer.options[option] for option in TrainConfig.model_fields}
    steps = max(2, round(scale * UPDATES))
    stage = Stage("train", config.model, TrainConfig.parse(options | {"steps": steps}, name))
    training = Training(seed, config.tokenizer, config.features, [stage])
    parts = two_languages(work / f"speech-{scale:g}", scale)
    trained = train(training, work / f"{name}-{seed}-{training.key()}", parts, work / "features")
    tokeniser = Tokeniser.load(trained.tokeniser)
    model = AsrModel(config.model, tokeniser.vocab_size)
    model.load_state_dict(load_file(trained.weights))
    cache = FeatureCache(work / "features", config.features)
    features = [cache.get(u) for u in parts["test"]]
    texts = {}
    for method in METHODS:
        decode = config.decode.model_copy(update={"method": method, "length_bonus": 0.0})
        found = recognise(model.eval(), tokeniser, features, decode)
        texts[method] = [tokeniser.decode(list(nbest[0].tokens)) if nbest else "" for nbest in found]
    print(f"{name} {seed}: {tokeniser.vocab_size} tokens", flush=True)
    return {"tokens": tokeniser.vocab_size, "texts": texts}


def summarise(
    made: Mapping[tuple[str, int], Mapping[str, Any]], seeds: Sequence[int], test: Sequence[Utterance]
) -> dict[str, Any]:
    """Return error rates by tokeniser, method and kind of sentence, and what is saved."""
    kinds = {
        "all": [True] * len(test),
        "switched": [u.tags["switched"] == "yes" for u in test],
        "English": [u.language == "en-us" for u in test],
        "Mandarin": [u.language == "cmn" for u in test],
    }
    rates: dict[str, Any] = {}
    errors: dict[str, dict[str, np.ndarray]] = {}
    for name in TOKENISERS:
        rates[name] = {"tokens": made[name, seeds[0]]["tokens"]}
        errors[name] = {}
        for method in METHODS:
            counts = []
            for seed in seeds:
                rows = score(
                    [u.id for u in test], [u.text or "" for u in test], made[name, seed]["texts"][method]
                )
                counts.append([mixed_counts(row) for row in rows])
            said = np.array([count.reference for count in counts[0]])
            wrong = np.array([[count.errors for count in one] for one in counts])
            errors[name][method] = wrong
            rates[name][method] = {
                kind: [round(float(one[mask].sum() / said[mask].sum()), 4) for one in wrong]
                for kind, mask in ((kind, np.array(chosen)) for kind, chosen in kinds.items())
                if mask.any()
            }
    fewer: dict[str, Any] = {name: {} for name in TOKENISERS if name != OURS}
    for name, by_method in fewer.items():
        for method in METHODS:
            gain = saved(errors[name][method], errors[OURS][method])
            by_method[method] = {part: round(getattr(gain, part), 4) for part in ("estimate", "low", "high")}
    return {"seeds": list(seeds), "mer": rates, "fewer_than": fewer}


def as_table(results: Mapping[str, Any]) -> str:
    """Return the results as Markdown: error rates in %, means over seeds."""
    kinds = list(results["mer"][OURS]["greedy"])
    lines = ["| tokeniser | tokens | method | " + " | ".join(kinds) + " | errors saved by mixed, % |"]
    lines.append("|---" * (len(kinds) + 4) + "|")
    for name, found in results["mer"].items():
        for method in METHODS:
            cells = [f"{100 * np.mean(found[method][kind]):.1f}" for kind in kinds]
            gain = results["fewer_than"].get(name, {}).get(method)
            told = (
                f"{100 * gain['estimate']:.0f} ({100 * gain['low']:.0f} to {100 * gain['high']:.0f})"
                if gain
                else ""
            )
            lines.append(f"| {name} | {found['tokens']} | {method} | " + " | ".join(cells) + f" | {told} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
