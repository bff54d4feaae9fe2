"""Faults of every kind while a cluster labels, trains and serves: what is lost, what is doubled, what comes out wrong.

python -m benchmarks.chaos --json results/chaos.json --faults 100

Hosts are network namespaces of this machine (root, iproute2 and, for clocks, libfaketime). On two workers a run labels
by a teacher that says the same wherever it runs, and trains a small student by two ranks; the endpoint of the cluster
is spoken to all the while from a host outside. Each fault hits a run of its own at a random time of labelling or
training, kinds in turns. Whoever operates a cluster does so here: a driver that has ended is started again, a host that
is gone is replaced, a cable is plugged in, a full disk is given room, a damaged entry is removed.

driver      kill -9 of `raysr ipl`
controller  kill -9 of Ray Train's or Ray Serve's controller
teacher, trainer, replica  kill -9 of an actor that labels, of a rank, of the endpoint
node        a worker's host is switched off
cut, slow   a worker's cable is pulled for up to 40 s; its link has 2 Mbit/s for half a minute
disk        the disk of the run is full for half a minute
clock       the clocks of all processes jump by up to a day, ahead or back
entry       a damaged entry, newer than all others, appears in the pool that is served

Of each fault: every utterance has one decision, those of an undisturbed run; the student's weights are, bit for bit,
those of the undisturbed run; every transcript of the endpoint was the right one; the pool's entries are whole; no actor
of the run lives on, and no unfinished file is left. `seconds` until the first progress after the fault: a block, a step
or a cycle that is done, or, where the endpoint was hit, a transcript. `hung`: no end within `--patience`. Finished
faults are kept in the results; the same command goes on.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from benchmarks.chaos_cluster import Cluster, heard, missing
from benchmarks.chaos_faults import FAULTS, Fault
from benchmarks.hosts import HostProcess
from raysr.audio.files import write_wav
from raysr.corpus.demo import demo_corpus
from raysr.corpus.load import load_waveform
from raysr.corpus.manifest import write_jsonl
from raysr.errors import RaysrError
from raysr.ipl.decisions import read_decisions
from raysr.pool import Pool

COUNTS = {"labelled": 10, "unlabelled": 30, "dev": 4}
STEPS, EVERY = 60, 10
RUNS_MB = 400
STARTS = 6
GONE_S = 30.0
SAID_S = 90.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--kinds", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--patience", type=float, default=420.0, help="seconds that a run may take to its end"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/chaos"))
    options = parser.parse_args()
    if reason := missing():
        raise SystemExit(f"error: {reason}")
    work = options.work.absolute()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = (
        json.loads(options.json.read_text())["faults"] if options.json.exists() else []
    )
    with disk(work / "runs"):
        corpus = write_corpus(work)
        with Cluster(work, work / "pool") as cluster:
            trial = Trial(cluster, work, corpus, options.patience)
            trial.begin()
            for number in range(len(rows), options.faults):
                draws = random.Random(f"{options.seed} {number}")
                kind = options.kinds[number % len(options.kinds)]
                rows.append(trial.fault(number, kind, draws))
                results = summary(rows)
                options.json.write_text(json.dumps({**results, "faults": rows}, indent=1) + "\n")
                print(json.dumps(rows[-1]), flush=True)
    print(as_table(summary(rows)))


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """Have a small disk of its own at a folder, for as long as the block runs."""
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={RUNS_MB}m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def write_corpus(work: Path) -> dict[str, str]:
    """Write the manifests of a run, and what is said to the endpoint; return the manifests by name."""
    corpus = demo_corpus()
    parts = {"labelled": corpus.labelled, "unlabelled": corpus.unlabelled, "dev": corpus.dev["clean"]}
    found = {}
    for name, manifest in parts.items():
        path = work / f"{name}.jsonl"
        write_jsonl(path, list(islice(manifest, COUNTS[name])))
        found[name] = str(path)
    write_wav(work / "said.wav", load_waveform(next(iter(corpus.tests["clean"]))))
    return found


@dataclass
class Trial:
    """Runs on a cluster, one after the other, each with a fault, beside an endpoint that is spoken to.

    Args:
        cluster: with workers.
        work: the folder that all hosts see.
        corpus: manifests by name.
        patience: seconds that a run may take.
    """

    cluster: Cluster
    work: Path
    corpus: dict[str, str]
    patience: float
    decisions: list[Any] = field(default_factory=list)
    weights: str = ""
    said: str = ""

    def begin(self) -> None:
        """Do an undisturbed run, serve its student, and hear what that says."""
        run = Running(self, "undisturbed")
        if run.finish(self.patience):
            raise SystemExit(f"error: the undisturbed run did not end: see {run.log}")
        self.decisions, self.weights = run.decisions(), run.weights()
        shutil.copytree(run.folder / "pool", self.work / "pool")
        self.cluster.serve()
        self.cluster.speaker(self.work / "said.wav", self.work / "said.jsonl")
        until = time.monotonic() + SAID_S
        while not (texts := [row["text"] for row in heard(self.work / "said.jsonl", 0) if "text" in row]):
            if time.monotonic() > until:
                raise SystemExit(f"error: the endpoint says nothing: see {self.work}/client.log")
            time.sleep(0.5)
        self.said = str(texts[0])

    def fault(self, number: int, kind: str, draws: random.Random) -> dict[str, Any]:
        """Let a fault happen to a run, and return what came of it."""
        fault: Fault = FAULTS[kind](self.cluster, self.work, draws)
        run = Running(self, f"{number:03}")
        stage = draws.choice(fault.stages)
        began = time.time()
        run.wait_for(stage, draws, self.patience)
        before = run.progress()
        hit, told = time.time(), fault.happen()
        seconds: float | None = None
        begun = time.monotonic()
        mend_at: float | None = begun + fault.lasts if fault.lasts else None
        while not (over := run.ended() and mend_at is None and seconds is not None):
            if time.monotonic() > begun + self.patience:
                break
            if mend_at is not None and time.monotonic() > mend_at:
                fault.mend()
                mend_at = None
            if seconds is None and (self._answered(hit) if fault.of_endpoint else run.progress() != before):
                seconds = round(time.time() - hit, 1)
            time.sleep(0.2)
        hung = not over
        if hung:
            fault.mend()
        problems = [] if hung else self._problems(run, began)
        counts = self._counts(run, began)
        run.stop()
        recovered = not hung and not problems and seconds is not None and not any(counts.values())
        if recovered:
            shutil.rmtree(run.folder)
        return {
            "number": number,
            "kind": kind,
            "stage": stage,
            "what": told,
            "seconds": seconds,
            "starts": run.starts,
            **counts,
            "hung": hung,
            "recovered": recovered,
            "problems": problems,
        }

    def _answered(self, since: float) -> bool:
        return any("text" in row for row in heard(self.work / "said.jsonl", since))

    def _counts(self, run: "Running", since: float) -> dict[str, int]:
        """Return how many utterances are lost and doubled, and how many texts are wrong, labels and transcripts."""
        found = run.decisions()
        times = Counter(decision.id for decision in found)
        expected = {decision.id: decision for decision in self.decisions}
        wrong = sum(decision != expected.get(decision.id) for decision in found)
        said = sum(row.get("text", self.said) != self.said for row in heard(self.work / "said.jsonl", since))
        return {
            "lost": len(expected.keys() - times.keys()),
            "doubled": sum(count > 1 for count in times.values()),
            "wrong": wrong + said,
        }

    def _problems(self, run: "Running", since: float) -> list[str]:
        """Return what else is not as it should be."""
        found = []
        if run.failed:
            found.append(f"the run ended {run.starts} times without its end: {run.failed}")
        elif run.weights() != self.weights:
            found.append("the student has other weights")
        if partial := [p for p in run.folder.rglob("*.partial") if p.exists()]:
            found.append(f"unfinished files: {', '.join(p.name for p in partial[:3])}")
        until = time.monotonic() + GONE_S
        while alive := [
            name
            for name in ("MapWorker", "RayTrainWorker", "TrainController")
            if self.cluster.processes(name)
        ]:
            if time.monotonic() > until:
                found.append(f"still there: {', '.join(alive)}")
                break
            time.sleep(0.5)
        return found


class Running:
    """A run and its driver, which is started again where it ends before the run does."""

    def __init__(self, trial: Trial, name: str) -> None:
        self._trial = trial
        self.folder = trial.work / "runs" / name
        self.log = trial.work / f"driver-{name}.log"
        self._config = trial.work / f"{name}.yaml"
        self._config.write_text(yaml.safe_dump(config(self.folder, trial.corpus)))
        self.starts, self.failed = 0, ""
        self._cycle = self.folder / "cycles" / "000"
        self._start()

    def progress(self) -> tuple[int, int, bool]:
        """Return blocks labelled, steps trained, and whether the cycle is done."""
        blocks = len(list((self._cycle / "predictions").glob("[!.]*.parquet")))
        metrics = self._cycle / "train" / "metrics.jsonl"
        steps = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        return blocks, steps, (self._cycle / "report.json").exists()

    def wait_for(self, stage: str, draws: random.Random, patience: float) -> None:
        """Wait until a random time within a stage."""
        blocks, steps = draws.randint(1, 6), draws.randint(1, STEPS - EVERY)
        until = time.monotonic() + patience
        while time.monotonic() < until and not self.ended():
            done = self.progress()
            if (stage == "labelling" and done[0] >= blocks) or (stage == "training" and done[1] >= steps):
                break
            time.sleep(0.05)
        time.sleep(draws.random())

    def ended(self) -> bool:
        """Return whether the run is over; start its driver again where that has ended before."""
        if self._driver.poll() is None:
            return False
        if self._driver.returncode == 0:
            return True
        if self.starts >= STARTS:
            self.failed = self.log.read_text(errors="replace")[-300:]
            return True
        self._start()
        return False

    def finish(self, patience: float) -> bool:
        """Wait for the end; return whether it did not come."""
        until = time.monotonic() + patience
        while not self.ended():
            if time.monotonic() > until:
                return True
            time.sleep(0.2)
        return bool(self.failed)

    def stop(self) -> None:
        """End the driver."""
        if self._driver.poll() is None:
            self._driver.kill()
        self._driver.wait()

    def decisions(self) -> list[Any]:
        """Return what became of each utterance, as far as that is known."""
        path = self._cycle / "decisions.parquet"
        with suppress(RaysrError, OSError):
            return read_decisions(path) if path.exists() else []
        return []

    def weights(self) -> str:
        """Return the hash of the student's weights, whole as it was published; empty where there is none."""
        entries = Pool(self.folder / "pool").entries()
        return entries[0].verify().weights_hash if entries else ""

    @property
    def driver(self) -> HostProcess:
        """The driver that runs now."""
        return self._driver

    def _start(self) -> None:
        self.starts += 1
        self._driver = self._trial.cluster.driver(self._config, self.log)


def config(folder: Path, corpus: dict[str, str]) -> dict[str, Any]:
    """Return a run that labels for ten seconds and trains for as many."""
    small = {"layers": 1, "heads": 2, "feed_forward": 32}
    return {
        "run": {"dir": str(folder), "cycles": 1, "canary": 0, "tracking": []},
        "data": dict(corpus),
        "lm": {"order": 2},
        "model": {"encoder": {"dim": 32, **small}, "decoder": small},
        "selector": {"kind": "all", "first_cycle": 0},
        "builder": {"kind": "external", "teachers": [{"kind": "benchmarks.chaos_teacher:Steady"}]},
        "recogniser": {"kind": "ray", "block": 3, "actors": {"min": 2, "max": 2}},
        "filter": [{"kind": "score", "keep": 0.7}],
        "stop": {"enabled": False},
        "cluster": {"address": "10.78.0.1:6379"},
        "trainer": {
            "steps": STEPS,
            "batch_seconds": 10.0,
            "checkpoint_every": EVERY,
            "log_every": 1,
            "workers": {"min": 2, "max": 2, "timeout_s": 30, "max_failures": 8},
            "network": {"preflight": False},
            "tuning": {"lm_weights": [0.5], "length_bonuses": [0.0]},
        },
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures over all faults, and seconds by kind."""
    by_kind: dict[str, list[float]] = {}
    for row in rows:
        if row["seconds"] is not None:
            by_kind.setdefault(row["kind"], []).append(row["seconds"])
    return {
        "count": len(rows),
        "lost_utterances": sum(row["lost"] for row in rows),
        "duplicate_utterances": sum(row["doubled"] for row in rows),
        "wrong_texts": sum(row["wrong"] for row in rows),
        "hung": sum(row["hung"] for row in rows),
        "recovered": sum(row["recovered"] for row in rows),
        "seconds": {
            kind: {"count": len(s), "median": statistics.median(s), "most": max(s)}
            for kind, s in by_kind.items()
        },
    }


def as_table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = ["| fault | times | seconds to recover, median | most |", "|---|---|---|---|"]
    for kind, seconds in results["seconds"].items():
        lines.append(f"| {kind} | {seconds['count']} | {seconds['median']} | {seconds['most']} |")
    told = ("count", "lost_utterances", "duplicate_utterances", "wrong_texts", "hung", "recovered")
    return "\n".join([*lines, "", *(f"{name}: {results[name]}" for name in told)])


if __name__ == "__main__":
    main()
