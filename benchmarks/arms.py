"""Runs of one recipe that differ in a few overrides: every arm goes on from the same first student of its seed.

Word error rates do not depend on how many workers share a batch: a cell is one process of one thread, without Ray,
and as many run side by side as there are cores. A finished cell is kept in a folder under a key of code,
configuration and corpus: a second call goes on with what is missing, and a changed key starts its cell over.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path

import torch

from benchmarks.code import ROOT, code_hash
from raysr.corpus.demo import demo_corpus
from raysr.corpus.features import FeatureCache
from raysr.ipl.config import read_config
from raysr.ipl.cycle import run_cycles
from raysr.ipl.progress import Progress
from raysr.ipl.run import open_run
from raysr.pool import Pool

RECIPE = ROOT / "jobs" / "conf" / "demo.yaml"
NEVER = "selector.first_cycle=1000"
CELL = ("raysr.ipl.run", "raysr.ipl.cycle", "benchmarks.truth")  # what a cell runs
WITHOUT_RAY = ["recogniser={kind: local}", "trainer.local=true"]
FIRST_STUDENT = ["run.cycles=1", NEVER]


@dataclass(frozen=True)
class Comparison:
    """Arms of the demo's recipe, alike in everything but their own overrides.

    Attributes:
        work: where finished cells are kept.
        arms: name → overrides of the recipe.
        common: overrides of all of them, and of their first student.
        files: what overrides name and the cells depend on.
        students: whether cells keep their last student, the only entry of the pool ``pool``.
    """

    work: Path
    arms: Mapping[str, Sequence[str]]
    common: Sequence[str] = ()
    files: Sequence[Path] = ()
    students: bool = False

    def run(self, seeds: Sequence[int], jobs: int | None = None) -> dict[tuple[str, int], Path]:
        """Return the folder of every finished cell, by arm and seed, running what is missing.

        A cell holds the run's ``config.yaml``, its ``report.json``, and its last student's ``scores.jsonl`` and
        ``metrics.json``.
        """
        compute_features(self.work)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs or os.cpu_count(), context, torch.set_num_threads, (1,)) as workers:
            first = {seed: workers.submit(self.first_student, seed) for seed in seeds}
            running = {
                (arm, seed): workers.submit(self.cell, arm, seed, first[seed].result())
                for seed, arm in product(seeds, self.arms)
            }
            return {name: cell.result() for name, cell in running.items()}

    def first_student(self, seed: int) -> Path:
        """Return the folder of a finished run of cycle 0, which is the same in every arm."""
        chosen = [f"run.seed={seed}", *self.common, *WITHOUT_RAY, *FIRST_STUDENT]
        folder = self.work / f"first-{seed}-{self.key(chosen)}"
        run_recipe(self.work, folder, chosen)
        return folder

    def cell(self, arm: str, seed: int, first: Path) -> Path:
        """Return the folder of a finished cell, carrying out what is left of its run."""
        chosen = [f"run.seed={seed}", *self.common, *WITHOUT_RAY, *self.arms[arm]]
        cell = self.work / f"{arm}-{seed}-{self.key(chosen)}"
        if cell.exists():
            return cell
        run, partial = self.work / f".{cell.name}", self.work / f".{cell.name}.partial"
        if not run.exists():
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(first, partial, symlinks=True)
            (partial / "config.yaml").unlink()  # of the first student; the cell writes its own
            partial.rename(run)
        run_recipe(self.work, run, chosen)
        last = sorted((run / "cycles").iterdir())[-1]
        student = Pool(run / "pool").entries()[-1].path
        partial.mkdir(exist_ok=True)
        for file in (
            last / "scores.jsonl",
            student / "metrics.json",
            run / "config.yaml",
            run / "report.json",
        ):
            shutil.copy(file, partial)
        if self.students:
            shutil.copytree(student, partial / "pool" / student.name, dirs_exist_ok=True)
        partial.rename(cell)
        shutil.rmtree(run)
        return cell

    def key(self, chosen: Sequence[str]) -> str:
        """Return what names a cell: a hash of the code, the corpus and the configuration."""
        contents = [hashlib.sha256(file.read_bytes()).hexdigest() for file in self.files]
        parts = [code_hash(CELL, [RECIPE]), demo_corpus().hash, *contents, *chosen]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def compute_features(work: Path) -> None:
    """Fill the feature cache that all cells share."""
    corpus = demo_corpus()
    parts = chain(corpus.labelled, corpus.unlabelled, *corpus.dev.values(), *corpus.tests.values())
    FeatureCache(work / "features", read_config(RECIPE).features).ensure(parts, os.cpu_count() or 1)


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


def cycle_reports(cell: Path) -> list[dict]:
    """Return the reports of a cell's cycles."""
    reports: list[dict] = json.loads((cell / "report.json").read_text())["cycles"]
    return reports


def dev_wer(cell: Path) -> dict[str, float]:
    """Return the last student's WER on dev by method."""
    metrics = json.loads((cell / "metrics.json").read_text())
    return {"greedy": metrics["dev_wer_greedy"], "lm": metrics["dev_wer"]}


def scored_rows(cell: Path, method: str, name: str) -> list[dict]:
    """Return the last student's rows on a set (id, errors, words, reference, hypothesis), in the order of the ids."""
    rows = [json.loads(line) for line in (cell / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    return sorted((r for r in rows if r["method"] == method and r["set"] == name), key=lambda r: r["id"])
