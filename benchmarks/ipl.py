"""What iterative pseudo-labelling is worth on the demo corpus: four arms, alike in everything but their labels.

python -m benchmarks.ipl --seeds 1 2 3 --json results/ipl.json

Every arm is the demo's recipe with the same updates (more than in the demo, which has twelve minutes),
augmentation, language model and schedule, and goes on from the same first student, trained on the labelled audio:

control    never labels: each cycle trains on the labelled audio again
ipl        the recipe as it is
no_filter  keeps every label that is not empty
oracle     trains on the hidden truth instead of labels

Word error rates do not depend on how many workers share a batch: a cell is one process of one thread, without Ray,
and as many run side by side as there are cores. A finished cell is kept in `--work` under a key of code,
configuration and corpus: a second call goes on with what is missing, and a changed key starts its cell over.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.code import ROOT, code_hash
from raysr.corpus.demo import demo_corpus
from raysr.corpus.features import FeatureCache
from raysr.evaluate.bootstrap import Interval, recovery_interval
from raysr.ipl.config import read_config
from raysr.ipl.cycle import run_cycles
from raysr.ipl.progress import Progress
from raysr.ipl.run import open_run

RECIPE = ROOT / "jobs" / "conf" / "demo.yaml"
CELL = ("raysr.ipl.run", "raysr.ipl.cycle", "benchmarks.truth")  # what a cell runs
ARMS: Mapping[str, Sequence[str]] = {
    "control": ["selector.first_cycle=1000"],
    "ipl": [],
    "no_filter": ["filter=[{kind: empty}]"],
    "oracle": ["recogniser={kind: benchmarks.truth:Truth}", "filter=[{kind: empty}]"],
}
UPDATES = ["trainer.steps_by_cycle=[2000, 2000, 2000]"]
WITHOUT_RAY = ["recogniser={kind: local}", "trainer.local=true"]
FIRST_STUDENT = ["run.cycles=1", "selector.first_cycle=1000"]
METHODS = ("greedy", "lm")
SETS = ("clean", "music")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/ipl"), help="finished cells")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="cells side by side")
    parser.add_argument("overrides", nargs="*", help="of the recipe, in every arm: dotted.key=value")
    options = parser.parse_args()
    compute_features(options.work)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, context, torch.set_num_threads, (1,)) as workers:
        first = {
            seed: workers.submit(run_first_student, options.work, seed, options.overrides)
            for seed in options.seeds
        }
        running = {
            (arm, seed): workers.submit(
                run_cell, options.work, arm, seed, options.overrides, first[seed].result()
            )
            for seed, arm in product(options.seeds, ARMS)
        }
        cells = {name: cell.result() for name, cell in running.items()}
    results = summarise(cells, options.seeds)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(as_table(results))


def compute_features(work: Path) -> None:
    """Fill the feature cache that all cells share."""
    corpus = demo_corpus()
    parts = chain(corpus.labelled, corpus.unlabelled, *corpus.dev.values(), *corpus.tests.values())
    FeatureCache(work / "features", read_config(RECIPE).features).ensure(parts, os.cpu_count() or 1)


def run_first_student(work: Path, seed: int, overrides: Sequence[str]) -> Path:
    """Return the folder of a finished run of cycle 0, which is the same in every arm."""
    chosen = [f"run.seed={seed}", *UPDATES, *overrides, *WITHOUT_RAY, *FIRST_STUDENT]
    folder = work / f"first-{seed}-{key(chosen)}"
    run_recipe(work, folder, chosen)
    return folder


def run_cell(work: Path, arm: str, seed: int, overrides: Sequence[str], first: Path) -> Path:
    """Return the folder of a finished cell: `scores.jsonl` of its last student and the run's `report.json`."""
    chosen = [f"run.seed={seed}", *UPDATES, *overrides, *WITHOUT_RAY, *ARMS[arm]]
    cell = work / f"{arm}-{seed}-{key(chosen)}"
    if cell.exists():
        return cell
    run, partial = work / f".{cell.name}", work / f".{cell.name}.partial"
    if not run.exists():
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(first, partial, symlinks=True)
        (partial / "config.yaml").unlink()  # of the first student; the cell writes its own
        partial.rename(run)
    run_recipe(work, run, chosen)
    last = sorted((run / "cycles").iterdir())[-1]
    partial.mkdir(exist_ok=True)
    for file in (last / "scores.jsonl", run / "config.yaml", run / "report.json"):
        shutil.copy(file, partial)
    partial.rename(cell)
    shutil.rmtree(run)
    return cell


def run_recipe(work: Path, folder: Path, overrides: Sequence[str]) -> None:
    """Carry out a run of the recipe, or what is left of it, in this process, with the features of ``work``."""
    config = read_config(RECIPE, [f"run.dir={folder.absolute()}", *overrides])
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "features").exists():
        (work / "features").mkdir(parents=True, exist_ok=True)
        (folder / "features").symlink_to((work / "features").absolute())
    started = time.monotonic()
    with open_run(config, Progress(quiet=True), [ROOT], use_ray=False) as run:
        run_cycles(run)
    print(f"{folder.name.strip('.')}: {(time.monotonic() - started) / 60:.1f} min", flush=True)


def key(chosen: Sequence[str]) -> str:
    """Return what names a cell: a hash of the code, the corpus and the configuration."""
    code = code_hash(CELL, [RECIPE])
    return hashlib.sha256("\n".join([code, demo_corpus().hash, *chosen]).encode()).hexdigest()[:16]


def summarise(cells: Mapping[tuple[str, int], Path], seeds: Sequence[int]) -> dict[str, Any]:
    """Return WER by arm, seed, method and set, and WRR pooled over seeds with its paired interval."""
    wer: dict[str, Any] = {}
    wrr: dict[str, Any] = {}
    for method in METHODS:
        for name in SETS:
            errors = {
                arm: np.array([_errors(cells[arm, seed], method, name) for seed in seeds]) for arm in ARMS
            }
            for arm, counts in errors.items():
                rates = counts[:, 0].sum(1) / counts[:, 1].sum(1)
                wer.setdefault(arm, {}).setdefault(method, {})[name] = [
                    round(float(rate), 4) for rate in rates
                ]
            for arm in ("ipl", "no_filter"):
                interval = recovery_interval(
                    errors["control"][:, 0], errors[arm][:, 0], errors["oracle"][:, 0]
                )
                wrr.setdefault(arm, {}).setdefault(method, {})[name] = _rounded(interval)
    labels = {
        f"{arm}-{seed}": [
            c["label_wer"] for c in json.loads((cells[arm, seed] / "report.json").read_text())["cycles"]
        ]
        for arm in ("ipl", "no_filter")
        for seed in seeds
    }
    flat = {m: {s: wrr["ipl"][m][s]["estimate"] for s in SETS} for m in METHODS}
    return {
        "seeds": list(seeds),
        "wrr": flat,
        "intervals": wrr,
        "wer": wer,
        "label_wer": labels,
        "code": code_hash(CELL, [RECIPE]),
    }


def _errors(cell: Path, method: str, name: str) -> tuple[list[int], list[int]]:
    """Return errors and reference words of every utterance, in the order of the ids."""
    rows = [json.loads(line) for line in (cell / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    chosen = sorted((r for r in rows if r["method"] == method and r["set"] == name), key=lambda r: r["id"])
    return [r["errors"] for r in chosen], [r["words"] for r in chosen]


def _rounded(interval: Interval) -> dict[str, float | None]:
    """Return an interval for JSON; WRR is undefined, None, where the oracle is no better than the control."""
    values = {part: getattr(interval, part) for part in ("estimate", "low", "high")}
    return {part: round(value, 3) if np.isfinite(value) else None for part, value in values.items()}


def as_table(results: Mapping[str, Any]) -> str:
    """Return the results as Markdown: WER in %, mean over seeds, then WRR."""
    columns = [(method, name) for method in METHODS for name in SETS]
    lines = [
        "| arm | " + " | ".join(f"{method} {name}" for method, name in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for arm in ARMS:
        means = [f"{100 * np.mean(results['wer'][arm][m][s]):.1f}" for m, s in columns]
        lines.append(f"| {arm} | " + " | ".join(means) + " |")
    for arm, found in results["intervals"].items():
        shown = [{part: _shown(value) for part, value in found[m][s].items()} for m, s in columns]
        cells = [f"{wrr['estimate']} ({wrr['low']}–{wrr['high']})" for wrr in shown]
        lines.append(f"| WRR {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
