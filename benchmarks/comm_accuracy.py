"""What compressing gradients costs in words: students of the demo corpus, trained by two workers, alike in the rest.

python -m benchmarks.comm_accuracy --seeds 1 2 3 --json results/comm_accuracy.json

Every arm trains the demo's model from the same weights, a seed's, with the same batches, draws and updates, on its true
texts; only how gradients cross the network differs. `pieces` exchanges as `none` does and merely cuts batches into
pieces, which is another rounding of the same sums: what it differs by is chance, and no other arm can be told apart
from `none` by less.

Tests are those of the demo corpus, and 800 utterances of its unlabelled part that nobody trains on. A student hears
whole files, greedily. Intervals are 95% paired bootstrap ones over utterances, the speech that is in two conditions
being drawn together, seeds pooled.

A training takes both cores. Finished cells are kept in `--work` under a key of their code, configuration and corpus;
those that were measured before lie in `benchmarks/recorded/comm_accuracy`, and `--record` adds to them.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.code import ROOT, code_hash
from benchmarks.joined import training_utterances
from benchmarks.model_scores import word_errors
from raysr.corpus.demo import demo_corpus
from raysr.corpus.disk import replacing
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.decode.recognise import DecodeConfig, recognise
from raysr.evaluate.bootstrap import bootstrap
from raysr.ipl.config import read_config
from raysr.model.model import AsrModel
from raysr.text.normalise import normalise
from raysr.text.tokeniser import Tokeniser
from raysr.train.job import SourceConfig, TrainConfig, TrainJob
from raysr.train.start import write_scratch

RECIPE = ROOT / "jobs" / "conf" / "demo.yaml"
RECORDED = ROOT / "benchmarks" / "recorded" / "comm_accuracy"
CODE = ("raysr.train.__main__", "raysr.decode.recognise", "raysr.evaluate.wer", "benchmarks.joined")
UNUSED = ("raysr.train.exchange.auto",)  # no arm leaves the choice to it
WARMUP = 150
HELD_OUT = 800
ARMS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "pieces": {"micro_batch_seconds": 3.0},
    "fp16": {"comm": {"kind": "fp16"}},
    "bf16": {"comm": {"kind": "bf16"}},
    "8bit": {"comm": {"kind": "8bit", "start": WARMUP}},
    "powersgd4": {"comm": {"kind": "powersgd", "rank": 4, "start": WARMUP}},
    "powersgd3": {"comm": {"kind": "powersgd", "rank": 3, "start": WARMUP}},
    "powersgd2": {"comm": {"kind": "powersgd", "rank": 2, "start": WARMUP}},
    "powersgd1": {"comm": {"kind": "powersgd", "rank": 1, "start": WARMUP}},
    "onebit_adam": {"optimiser": {"kind": "onebit_adam", "freeze_step": 2 * WARMUP}},
    "1bit": {"comm": {"kind": "1bit", "start": WARMUP}},
    "powersgd4, from the first step": {"comm": {"kind": "powersgd", "rank": 4, "start": 0}},
    "powersgd4, from step 600": {"comm": {"kind": "powersgd", "rank": 4, "start": 600}},
    "powersgd2, from step 600": {"comm": {"kind": "powersgd", "rank": 2, "start": 600}},
    "powersgd4, no error feedback": {
        "comm": {"kind": "powersgd", "rank": 4, "start": WARMUP, "error_feedback": False}
    },
    "powersgd4, no warm start": {
        "comm": {"kind": "powersgd", "rank": 4, "start": WARMUP, "warm_start": False}
    },
    "powersgd4, bf16": {"comm": {"kind": "powersgd", "rank": 4, "start": WARMUP, "wire": "bf16"}},
    "powersgd2, no error feedback": {
        "comm": {"kind": "powersgd", "rank": 2, "start": WARMUP, "error_feedback": False}
    },
    "onebit_adam, freeze at 150": {"optimiser": {"kind": "onebit_adam", "freeze_step": WARMUP}},
    "local_sgd, 8 steps": {"comm": {"kind": "local_sgd", "every": 8, "start": WARMUP}},
    "diloco, 8 steps": {"comm": {"kind": "diloco", "every": 8, "start": WARMUP}},
}


@dataclass(frozen=True)
class Cell:
    """One arm with one seed."""

    arm: str
    seed: int


@dataclass(frozen=True)
class Bench:
    """What all cells share, in a folder: features, a tokeniser, manifests of training and of the tests."""

    folder: Path
    steps: int

    @property
    def cache(self) -> Path:
        return self.folder / "features"

    @property
    def tokeniser(self) -> Path:
        return self.folder / "tokenizer.model"

    def prepare(self) -> None:
        """Write what is missing."""
        train, tests = utterances()
        everything = [*train, *(u for each in tests.values() for u in each)]
        if errors := FeatureCache(self.cache).ensure(everything, workers=os.cpu_count() or 1):
            raise SystemExit(f"error: no features: {errors}")
        write_jsonl(self.folder / "train.jsonl", train)
        Tokeniser.train([u.text or "" for u in train], read_config(RECIPE).tokenizer).save(self.tokeniser)

    def job(self, cell: Cell, out: Path) -> TrainJob:
        """Return the training of a cell, with its first weights written."""
        run = read_config(RECIPE)
        options = {k: v for k, v in run.trainer.options.items() if k in TrainConfig.model_fields}
        arm = {key: _merged(options.get(key), value) for key, value in ARMS[cell.arm].items()}
        train = TrainConfig.parse(
            options | {"steps": self.steps, "checkpoint_every": self.steps, "log_every": 10} | arm
        )
        init = self.folder / f"init-{cell.seed}.safetensors"
        if not init.exists():
            cache = FeatureCache(self.cache)
            vocab_size = Tokeniser.load(self.tokeniser).vocab_size
            write_scratch(init, run.model, vocab_size, utterances()[0], cache, cell.seed)
        return TrainJob(
            out=str(out.absolute()),
            init=str(init.absolute()),
            tokeniser=str(self.tokeniser.absolute()),
            cache=str(self.cache.absolute()),
            sources=[SourceConfig(name="train", manifest=str((self.folder / "train.jsonl").absolute()))],
            model=run.model,
            train=train,
            seed=cell.seed,
        )

    def key(self, cell: Cell) -> str:
        """Return a hash of what decides a cell's result."""
        job = self.job(cell, Path("out")).dump()
        parts = [
            code_hash(CODE, [RECIPE], without=UNUSED),
            demo_corpus().hash,
            HELD_OUT,
            job["train"],
            job["model"],
            cell.seed,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--arms", nargs="+", metavar="ARM", default=list(ARMS), help="of these alone")
    parser.add_argument("--steps", type=int, default=2000, help="updates of every training")
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/benchmarks/comm_accuracy"), help="finished cells"
    )
    parser.add_argument("--record", action="store_true", help="keep finished cells in the checkout too")
    options = parser.parse_args()
    if unknown := [arm for arm in options.arms if arm not in ARMS]:
        raise SystemExit(f"error: no arm {unknown[0]!r}; there are {', '.join(ARMS)}")
    bench = Bench(options.work.absolute(), options.steps)
    bench.prepare()
    found: dict[Cell, dict[str, Any]] = {}
    for seed in options.seeds:
        for arm in dict.fromkeys(["none", *options.arms]):
            found[Cell(arm, seed)] = run_cell(bench, Cell(arm, seed), options.record)
            results = summarise(found, options)
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(as_table(results))


def run_cell(bench: Bench, cell: Cell, record: bool) -> dict[str, Any]:
    """Return a cell's result, training and scoring what is missing."""
    key = bench.key(cell)
    folder, recorded = bench.folder / key, RECORDED / f"{key}.json"
    path = recorded if recorded.exists() else folder / "result.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        job = bench.job(cell, folder / "train")
        (folder / "job.json").write_text(json.dumps(job.dump()))
        ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "raysr.train"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, *ranks, str(folder / "job.json")]
        weights = subprocess.run(
            command, check=True, env=environment, stdout=subprocess.PIPE, text=True
        ).stdout
        result = {
            "arm": cell.arm,
            "seed": cell.seed,
            **bytes_and_loss(folder / "train" / "metrics.jsonl"),
            "errors": scored(bench, job, weights.strip()),
        }
        with replacing(path) as file:
            file.write(json.dumps(result).encode())
        print(f"{cell.arm}, seed {cell.seed}: {100 * rate(result['errors']):.2f}% WER", flush=True)
    if record and path != recorded:
        recorded.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, recorded)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def bytes_and_loss(metrics: Path) -> dict[str, float]:
    """Return the mean bytes of a step and rank over a training, those of its last steps, and the last losses' mean.

    `payload` is what is handed to collectives, `wire` what a rank sends for them; `late` is the last quarter.
    """
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    lengths = [after - before for before, after in pairwise([0, *(row["step"] for row in rows)])]
    late = slice(-max(1, len(rows) // 4), None)
    return {
        "payload_bytes": float(np.average([row["payload_bytes"] for row in rows], weights=lengths)),
        "wire_bytes": float(np.average([row["wire_bytes"] for row in rows], weights=lengths)),
        "late_payload_bytes": float(np.mean([row["payload_bytes"] for row in rows[late]])),
        "late_wire_bytes": float(np.mean([row["wire_bytes"] for row in rows[late]])),
        "loss": float(np.mean([row["loss"] for row in rows[late]])),
        "skipped_steps": rows[-1]["skipped_steps"],
    }


@cache
def tested() -> dict[str, int]:
    """Return the words of each test utterance, by id, in the order of errors."""
    everything = [u for each in utterances()[1].values() for u in each]
    return {u.id: len(normalise(u.text or "").split()) for u in sorted(everything, key=lambda u: u.id)}


def scored(bench: Bench, job: TrainJob, weights: str) -> list[int]:
    """Return the errors in each test utterance, recognised in as many processes as there are cores."""
    everything = [u for each in utterances()[1].values() for u in each]
    everything.sort(key=lambda u: u.duration)
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        parts = [everything[number::workers] for number in range(workers)]
        found = [pool.submit(_recognised, bench, job, weights, part) for part in parts]
        errors = {name: count for part in found for name, count in part.result().items()}
    return [errors[name] for name in tested()]


def _recognised(bench: Bench, job: TrainJob, weights: str, part: Sequence[Utterance]) -> dict[str, int]:
    tokeniser, cache = Tokeniser.load(bench.tokeniser), FeatureCache(bench.cache)
    model = AsrModel(job.model, tokeniser.vocab_size).eval()
    model.load_state_dict(load_file(weights))
    found: dict[str, int] = {}
    for first in range(0, len(part), 32):
        group = part[first : first + 32]
        heard = recognise(model, tokeniser, [cache.get(u) for u in group], DecodeConfig(method="greedy"))
        texts = [tokeniser.decode(list(best[0].tokens)) if best else "" for best in heard]
        found |= {u.id: errors for u, errors in zip(group, word_errors(group, texts), strict=True)}
    return found


def utterances() -> tuple[list[Utterance], dict[str, list[Utterance]]]:
    """Return what is trained on, and the tests by name."""
    corpus = demo_corpus()
    spoken = training_utterances(corpus)["train"]
    unlabelled = {u.id for u in corpus.unlabelled}
    held_out = [u for u in spoken if u.id in unlabelled][-HELD_OUT:]
    aside = {u.id for u in held_out}
    tests = {name: list(test) for name, test in corpus.tests.items()}
    return [u for u in spoken if u.id not in aside], {**tests, "unlabelled": held_out}


def summarise(found: Mapping[Cell, Mapping[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Return WER, bytes and the relative change against ``none`` by arm, over the seeds that an arm has."""
    results: dict[str, Any] = {}
    for arm in dict.fromkeys(cell.arm for cell in found):
        cells = [cell for cell in found if cell.arm == arm]
        mine = [found[cell] for cell in cells]
        plain = [found[Cell("none", cell.seed)] for cell in cells]
        change = relative_change([r["errors"] for r in mine], [r["errors"] for r in plain])
        results[arm] = {
            "seeds": [cell.seed for cell in cells],
            "wer": [round(rate(result["errors"]), 5) for result in mine],
            "relative_change": change,
            **{
                key: float(np.mean([result[key] for result in mine]))
                for key in mine[0]
                if key.endswith("_bytes") or key in ("loss", "skipped_steps")
            },
        }
    whole = results["none"]
    for found_of in results.values():
        found_of["fewer"] = {
            key: round(whole[key] / found_of[key], 2) for key in whole if key.endswith("_bytes")
        }
    return {
        "arms": results,
        "steps": options.steps,
        "test_utterances": len(next(iter(found.values()))["errors"]),
        "code": code_hash(CODE, [RECIPE], without=UNUSED),
    }


def rate(errors: Sequence[int]) -> float:
    """Return the WER over all tests."""
    return sum(errors) / sum(tested().values())


def relative_change(mine: Sequence[Sequence[int]], plain: Sequence[Sequence[int]]) -> dict[str, float]:
    """Return (WER − WER of ``none``) / WER of ``none``, seeds pooled, with its paired interval over speech."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one, other in zip(mine, plain, strict=True):
        for name, errors, others in zip(tested(), one, other, strict=True):
            speech = name.removesuffix("-music").removesuffix("-clean")
            sums[speech][0] += errors
            sums[speech][1] += others
    own, theirs = np.array(list(sums.values()), dtype=float).T
    found = bootstrap([own, theirs], lambda a, b: a / b - 1, draws=10_000, level=0.95, seed=0)
    return {part: round(float(getattr(found, part)), 4) for part in ("estimate", "low", "high")}


def as_table(results: Mapping[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| arm | WER by seed % | relative change % | times fewer bytes sent, late | over all steps | payload, late |",
        "|---|---|---|---|---|---|",
    ]
    for arm, found in results["arms"].items():
        change = {part: f"{100 * value:+.1f}" for part, value in found["relative_change"].items()}
        rates = " / ".join(f"{100 * wer:.2f}" for wer in found["wer"])
        kinds = ("late_wire_bytes", "wire_bytes", "late_payload_bytes")
        fewer = " | ".join(f"{found['fewer'][kind]:.1f}" for kind in kinds)
        lines.append(
            f"| {arm} | {rates} | {change['estimate']} ({change['low']} to {change['high']}) | {fewer} |"
        )
    return "\n".join(lines)


def _merged(before: Any, changes: Any) -> Any:
    """Return options with changes, key by key."""
    return {**before, **changes} if isinstance(before, dict) and isinstance(changes, dict) else changes


if __name__ == "__main__":
    main()
