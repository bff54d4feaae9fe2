"""Trainings whose workers, nodes and drivers are killed at random steps, against trainings that nobody disturbs.

python -m benchmarks.resume --json results/resume.json

Ray runs on hosts of its own, network namespaces of this machine (root and iproute2): a head, and two that train. A
fault is

worker    `kill -9` of a process that trains; Ray Train starts it again
driver    `kill -9` of the process that has called `fit`; another one calls it again
node      a host is switched off with all that runs on it, and another one plugged in
elastic   a host is switched off, the training goes on with one worker, and with two when another host is plugged in

After the first three, every step's metrics have to be those of the undisturbed training, bit for bit, and so have the
final weights. The fourth trains by other numbers of workers: every utterance has to come once an epoch all the same,
and the student to be worth as much, its word error rate within the undisturbed one's 95% bootstrap interval.
"""

import argparse
import json
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.resume_jobs import EVERY, elastic_job, errors_and_words, exact_job
from benchmarks.resume_kill import Fault
from benchmarks.resume_nodes import Nodes
from benchmarks.resume_rows import different, read_rows
from benchmarks.resume_run import Run
from benchmarks.resume_seen import FOLDER, account
from raysr.evaluate.bootstrap import difference_interval, wer_interval
from raysr.train.job import TrainJob

EXACT = ("worker", "driver", "node")
PARTS = EXACTLY, ELASTIC = "faults", "elastic"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=20, help="a tenth of them elastic, at least one")
    parser.add_argument("--seed", type=int, default=1, help="of steps and victims")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--json", type=Path, required=True, help="where the results go; parts of it stay")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/resume"))
    options = parser.parse_args()
    work, rng = options.work.absolute(), np.random.default_rng(options.seed)
    shutil.rmtree(work / "seen", ignore_errors=True)
    (work / "seen").mkdir(parents=True)
    elastic = max(1, options.faults // 10)
    each = -(-(options.faults - elastic) // len(EXACT))
    results: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() else {}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    with Nodes(2, work, {FOLDER: str(work / "seen")}) as nodes:
        for part in options.only:
            if part == EXACTLY:
                results[part] = faults(nodes, exact_job(work, each), each, rng)
            else:
                results[part] = elasticity(nodes, elastic_job(work, elastic), elastic, work / "seen", rng)
            options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(as_table(results))


def faults(nodes: Nodes, job: TrainJob, count: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return what became of so many faults of each kind, and what differs from an undisturbed training."""
    with Run(nodes, moved(job, "undisturbed"), 2, 0, rng) as run:
        weights = run.end().read_bytes()
    undisturbed = read_rows(run.out)
    found = {}
    for kind in EXACT:
        with Run(nodes, moved(job, kind), 2, count, rng) as run:
            struck = disturb(run, kind, count, rng)
            same = run.end().read_bytes() == weights
        wrong = different(read_rows(run.out), undisturbed)
        found[kind] = {**summary(struck), "different_steps": wrong, "same_weights": same}
        print(f"{kind}: {found[kind]}", flush=True)
    return found


def elasticity(
    nodes: Nodes, job: TrainJob, count: int, seen: Path, rng: np.random.Generator
) -> dict[str, Any]:
    """Return what became of hosts that were lost and replaced, what was trained on, and what the students are worth."""
    errors = {}
    with Run(nodes, moved(job, "undisturbed"), 2, 0, rng) as run:
        errors["undisturbed"], words = errors_and_words(job, run.end())
    for file in seen.glob("*"):
        file.unlink()
    with Run(nodes, moved(job, "elastic"), 1, count, rng) as run:
        struck = disturb(run, ELASTIC, count, rng)
        errors["disturbed"], _ = errors_and_words(job, run.end())
    taken = account(job, seen)
    wer = {name: wer_interval(counts, words) for name, counts in errors.items()}
    found = {
        "lost": summary(struck[::2]),
        "regained": summary(struck[1::2]),
        "ranks": taken.ranks,
        "epochs": taken.epochs,
        "skipped": taken.skipped,
        "repeated": taken.repeated,
        "as_dealt": taken.is_clean,
        "wer": {name: asdict(interval) for name, interval in wer.items()},
        "worth_as_much": wer["undisturbed"].low <= wer["disturbed"].estimate <= wer["undisturbed"].high,
        "wer_change": asdict(difference_interval(errors["disturbed"], errors["undisturbed"], words)),
    }
    print(f"elastic: {found}", flush=True)
    return found


def disturb(run: Run, kind: str, count: int, rng: np.random.Generator) -> list[Fault]:
    """Let so many faults strike, each somewhere in the middle of its share of the steps."""
    share = run.job.train.steps / (count + 0.5)
    steps = [round(share * (number + rng.uniform(0.3, 0.7))) for number in range(count)]
    return [fault for step in steps for fault in run.disturb(kind, step)]


def moved(job: TrainJob, name: str) -> TrainJob:
    """Return the training with a folder of its own."""
    return job.model_copy(update={"out": str(Path(job.out) / name)})


def summary(struck: Sequence[Fault]) -> dict[str, Any]:
    """Return how many faults there were, the steps that they cost, and the seconds."""
    return {
        "faults": len(struck),
        "lost_steps": [fault.lost for fault in struck],
        "seconds": [round(fault.seconds, 1) for fault in struck],
    }


def as_table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = ["| fault | times | steps taken again: median, most | seconds: median, most | as undisturbed |"]
    lines.append("|---|---|---|---|---|")
    for kind, found in results["faults"].items():
        same = found["same_weights"] and not found["different_steps"]
        lines.append(f"| {kind} | {_costs(found)} | {'bit for bit' if same else 'no'} |")
    elastic = results["elastic"]
    once = "every utterance once an epoch" if elastic["as_dealt"] else "no"
    lines += [f"| {kind} | {_costs(elastic[kind])} | {once} |" for kind in ("lost", "regained")]
    before, after = (elastic["wer"][name] for name in ("undisturbed", "disturbed"))
    change = elastic["wer_change"]
    worth = f"WER {after['estimate']:.1%}; undisturbed {_interval(before)}; change {_interval(change)}"
    lines += ["", f"Workers {', '.join(map(str, elastic['ranks']))}: {worth}"]
    return "\n".join(lines)


def _costs(found: dict[str, Any]) -> str:
    steps, seconds = found["lost_steps"], found["seconds"]
    return (
        f"{found['faults']} | {statistics.median(steps):g}, {max(steps)} of {EVERY} | "
        f"{statistics.median(seconds):.0f}, {max(seconds):.0f}"
    )


def _interval(found: dict[str, float]) -> str:
    return f"{found['estimate']:.1%} [{found['low']:.1%}, {found['high']:.1%}]"


if __name__ == "__main__":
    main()
