"""Training through Ray Train beside the same training under bare torchrun, and what its data cost.

python -m benchmarks.train --json results/train.json

Two ranks train the demo's student by the demo's recipe, unchanged but for its number of steps and for metrics every
ten of them, so that some lie within one turn: 15 s of audio a step, a checkpoint every 500, features from the cache.
A pair's two trainings take turns of some seconds, so that a machine that is slower for a while is so for both: all
processes of the one are stopped while the other goes on. No Ray runs beside torchrun, whose ranks have what Ray's
driver and daemons take on the same cores. Nobody is pinned to a core, and threads are as each way sets them. The
first steps are not counted, in which memory is got, Ray's idle processes start and, where features are streamed, the
first epoch passes, nor are those that one has left when the other is done; checkpoints are. The machine should do
nothing else.

ratio_vs_torchrun   seconds of a step under torchrun by those under Ray: the median over pairs, which start in turns;
                    `ratios` has them all
same_losses         whether all these trainings, of both ways and readings, have reported the same losses, bit for bit
beside              cores that all processes but the ranks take: the median
startup_s           from the command to the first step, which is in no ratio: the median
data_wait_share     of the time of these steps, waited for a batch, by metrics between which nothing was stopped: of the
                    ways and of both readings, features from the cache (`cache`) and streamed with `cache: disk`
                    (`stream`), that which waits longest, of each the median; `data_wait` has them all
prepare_s           seconds of a thread for an hour of audio, from files to augmented batches, in epochs that are
                    prepared and not trained on: `stream: true, cache: disk`, FLAC in Parquet shards, two ranks that
                    share what they compute, 85 minutes of speech; all files are in the kernel's memory
epoch2_speedup      of that, how many times faster the second epoch is: the median over rounds
preparation         the same of one rank and two, FLAC and WAV, and with `load_to_memory`

A finished pair or preparation is kept in `--work` under a key of code and configuration: a second call goes on with
what is missing.
"""

import argparse
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.arms import RECIPE
from benchmarks.code import code_hash
from benchmarks.train_data import ALL, FORMS, LABELLED, Material, material
from benchmarks.train_reading import prepare
from benchmarks.train_ways import RANKS, RAY, TORCHRUN, WAYS, carry_out
from raysr.corpus.demo import demo_corpus
from raysr.corpus.disk import replacing
from raysr.train.job import TrainJob

CACHE, STREAM, PREPARE = "cache", "stream", "prepare"
FROM_FILES = {"stream": True, "cache": "disk"}
READINGS: Mapping[str, Mapping[str, Any]] = {CACHE: {}, STREAM: FROM_FILES}
KEPT: Mapping[str, Mapping[str, Any]] = {
    "disk": FROM_FILES,
    "memory": {**FROM_FILES, "load_to_memory": True},
}
LOG_EVERY = 10
QUOTED = f"flac-{RANKS}-disk"
CODE = tuple(f"benchmarks.train_{part}" for part in ("data", "fit", "reading", "ways"))


@dataclass(frozen=True)
class Pair:
    """Both ways, in turns; ``first`` steps of each are not counted."""

    reading: str
    number: int
    steps: int
    first: int

    @property
    def name(self) -> str:
        return f"{self.reading}-{self.number}"

    def measure(self, given: Material, folder: Path) -> dict[str, Any]:
        """Return what was seen of each way."""
        ways = [TORCHRUN, RAY][:: -1 if self.number % 2 else 1]
        jobs = {way: self._job(given, folder / way) for way in ways}
        return {way: asdict(seen) for way, seen in carry_out(jobs, folder).items()}

    def _job(self, given: Material, folder: Path) -> TrainJob:
        features = given.features if self.reading == CACHE else folder / "features"
        options = {"steps": self.steps, "reading": READINGS[self.reading], "log_every": LOG_EVERY}
        return given.job(folder / "out", given.manifest("flac", LABELLED), features, options)


@dataclass(frozen=True)
class Preparation:
    """Two epochs of batches that nobody trains on."""

    form: str
    ranks: int
    kept: str
    number: int

    @property
    def setting(self) -> str:
        return f"{self.form}-{self.ranks}-{self.kept}"

    @property
    def name(self) -> str:
        return f"{PREPARE}-{self.setting}-{self.number}"

    def measure(self, given: Material, folder: Path) -> dict[str, Any]:
        """Return what each epoch cost."""
        options = {"reading": KEPT[self.kept]}
        manifest = given.manifest(self.form, ALL)
        job: TrainJob = given.job(folder / "out", manifest, folder / "features", options)
        return {"epochs": [asdict(cost) for cost in prepare(job, self.ranks)]}


Cell = Pair | Preparation


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    everything = [CACHE, STREAM, PREPARE]
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/train"), help="finished cells")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of each reading, and preparations")
    parser.add_argument("--steps", type=int, default=1200, help="of each training")
    parser.add_argument("--first", type=int, default=200, help="steps that are not counted")
    parser.add_argument("--only", nargs="+", choices=everything, default=everything)
    options = parser.parse_args()
    if options.first >= options.steps:
        parser.error("--first: fewer than --steps")
    work = options.work.absolute()
    given = material(work)
    cells = plan(options.only, options.rounds, options.steps, options.first)
    for cell in cells:
        if not file_of(cell, work).exists():
            carry_through(cell, given, work)
    found = {cell: json.loads(file_of(cell, work).read_text()) for cell in cells}
    results = {"machine": {"cpus": os.cpu_count()}, "training": about(given, options), **evaluate(found)}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(as_table(results))


def plan(parts: Sequence[str], rounds: int, steps: int, first: int) -> list[Cell]:
    """Return all cells, round by round, so that what the machine does meanwhile falls on all settings alike."""
    cells: list[Cell] = []
    for number in range(rounds):
        cells += [Pair(reading, number, steps, first) for reading in READINGS if reading in parts]
        if PREPARE in parts:
            cells += [Preparation(*setting, number) for setting in product(FORMS, (1, RANKS), KEPT)]
    return cells


def file_of(cell: Cell, work: Path) -> Path:
    """Return where a finished cell is kept."""
    parts = [_code(), demo_corpus().hash, asdict(cell)]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return work / f"{cell.name}-{key}.json"


def carry_through(cell: Cell, given: Material, work: Path) -> None:
    """Measure a cell and keep what was found."""
    started, load = time.monotonic(), os.getloadavg()[0]
    folder = work / "runs" / cell.name
    shutil.rmtree(folder, ignore_errors=True)
    found = {**cell.measure(given, folder), "load_before": load}
    with replacing(file_of(cell, work)) as file:
        file.write(json.dumps(found).encode())
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{cell.name}: {time.monotonic() - started:.0f} s", flush=True)


def about(given: Material, options: argparse.Namespace) -> dict[str, Any]:
    """Return what was trained."""
    job = given.job(Path(), Path(), Path(), {"steps": options.steps})
    return {
        "ranks": RANKS,
        "parameters": given.parameters,
        "batch_seconds": job.train.batch_seconds,
        "steps": options.steps,
        "not_counted": options.first,
        "checkpoint_every": job.train.checkpoint_every,
        "hours": {part: round(given.hours(part), 3) for part in (LABELLED, ALL)},
    }


def evaluate(found: Mapping[Cell, Mapping[str, Any]]) -> dict[str, Any]:
    """Return all results of finished cells."""
    pairs = {cell: seen for cell, seen in found.items() if isinstance(cell, Pair)}
    preparations = {cell: seen for cell, seen in found.items() if isinstance(cell, Preparation)}
    return {**_of_pairs(pairs), **_of_preparations(preparations)}


def steady(rows: Sequence[Mapping[str, Any]], first: int) -> tuple[float, float]:
    """Return the seconds of a step, and the share of them waited for data, of the steps that count.

    Args:
        rows: of a training, see :class:`benchmarks.train_ways.Row`.
        first: steps that are not counted; none of a row that has one of them is.
    """
    counted = [row for row in rows if row["in_turns"] and row["metrics"]["step"] >= first]
    if len(counted) < 2:
        raise ValueError(f"no metrics in turns after the first {first} steps")
    begin, end = counted[0], counted[-1]
    steps = end["metrics"]["step"] - begin["metrics"]["step"]
    seconds = waited = 0.0
    for before, row in pairwise(counted):
        if row["whole"]:
            metrics = row["metrics"]
            took = (metrics["step"] - before["metrics"]["step"]) * metrics["seconds_per_step"]
            seconds += took
            waited += took * metrics["data_wait"]
    return (end["at"] - begin["at"]) / steps, waited / seconds if seconds else math.nan


def _of_pairs(pairs: Mapping[Pair, Mapping[str, Any]]) -> dict[str, Any]:
    results: dict[str, Any] = {
        name: {} for name in ("ratios", "step_s", "data_wait", "startup_s", "total_s", "beside")
    }
    for reading in dict.fromkeys(pair.reading for pair in pairs):
        of_reading = {pair: seen for pair, seen in pairs.items() if pair.reading == reading}
        seen_of = {way: [(pair, seen[way]) for pair, seen in of_reading.items()] for way in WAYS}
        means = {w: [steady(s["rows"], p.first) for p, s in seen] for w, seen in seen_of.items()}
        step_s = {way: [seconds for seconds, _ in found] for way, found in means.items()}
        results["ratios"][reading] = [
            bare / ray for bare, ray in zip(step_s[TORCHRUN], step_s[RAY], strict=True)
        ]
        results["step_s"][reading] = {way: median(seconds) for way, seconds in step_s.items()}
        results["data_wait"][reading] = {w: median(share for _, share in found) for w, found in means.items()}
        for name in ("startup_s", "total_s", "beside"):
            results[name][reading] = {w: median(s[name] for _, s in seen) for w, seen in seen_of.items()}
    if pairs:
        results["data_wait_share"] = max(
            s for of_way in results["data_wait"].values() for s in of_way.values()
        )
        results["same_losses"] = len({_losses(seen[way]) for seen in pairs.values() for way in WAYS}) == 1
    if CACHE in results["ratios"]:
        results["ratio_vs_torchrun"] = median(results["ratios"][CACHE])
    return results


def _losses(seen: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(row["metrics"]["loss"] for row in seen["rows"])


def _of_preparations(preparations: Mapping[Preparation, Mapping[str, Any]]) -> dict[str, Any]:
    costs: dict[str, list[list[float]]] = {}
    for cell, seen in preparations.items():
        of_epochs = [epoch["seconds"] / epoch["hours"] for epoch in seen["epochs"]]
        costs.setdefault(cell.setting, []).append(of_epochs)
    results: dict[str, Any] = {"preparation": {}}
    for setting, rounds in costs.items():
        results["preparation"][setting] = {
            "prepare_s": {"epoch1": median(r[0] for r in rounds), "epoch2": median(r[1] for r in rounds)},
            "epoch2_speedup": median(r[0] / r[1] for r in rounds),
        }
    return {**results, **results["preparation"].get(QUOTED, {})}


def as_table(results: Mapping[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = []
    if results["ratios"]:
        lines += [
            "| features | way | s a step | data wait | start-up, s | cores beside ranks | ratio |",
            "|---|" + "---:|" * 6,
        ]
    for reading, ratios in results["ratios"].items():
        for way in WAYS:
            cells = [reading, way, f"{results['step_s'][reading][way]:.4f}"]
            cells += [
                f"{results['data_wait'][reading][way]:.2%}",
                f"{results['startup_s'][reading][way]:.1f}",
                f"{results['beside'][reading][way]:.3f}",
            ]
            cells += [f"{median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})" if way == RAY else ""]
            lines.append("| " + " | ".join(cells) + " |")
    if results["preparation"]:
        lines += ["", "| files, ranks, kept | epoch 1, s/h | epoch 2, s/h | faster |", "|---|---:|---:|---:|"]
    for setting, found in results["preparation"].items():
        first, second = found["prepare_s"].values()
        lines.append(f"| {setting} | {first:.2f} | {second:.2f} | {found['epoch2_speedup']:.1f} |")
    return "\n".join(lines).strip()


@cache
def _code() -> str:
    return code_hash(CODE, [RECIPE])


if __name__ == "__main__":
    main()
