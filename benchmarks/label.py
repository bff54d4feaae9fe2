"""Labelling on Ray beside bare processes that run the same teacher, and a corpus that streams through.

python -m benchmarks.label --json results/label.json --stream-gb 20

A pool of one or two actors and as many bare processes, each with one thread, label the same blocks from the same
shards, each the next one when it has done with one: decoding, features, a Conformer of the default size, greedy
decoding, predictions written. They take turns; `ratio_vs_bare` is the median of what the pool labels in a second by
what the processes label, pair by pair. Both are timed by their files of predictions, from when the last worker is in
its sixth block, so that neither pays for starting up.

The stream is 48 kHz stereo WAV in shards, decoded by tasks so that all of it passes through the object store, and
labelled by a teacher that costs nothing. Reported are the driver's peak of resident memory and the most that the object
store held.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor

from benchmarks.hostile import Loudness, context
from benchmarks.stream import StoreWatch, peak_rss_mb, synthetic_corpus
from raysr.cluster import ClusterConfig, connect
from raysr.config import Spec
from raysr.corpus.demo import demo_corpus
from raysr.corpus.features import FeatureCache
from raysr.corpus.manifest import Manifest, open_manifest
from raysr.corpus.utterance import Utterance
from raysr.decode.recognise import DecodeConfig
from raysr.ipl.labelling.blocks import blocks
from raysr.ipl.labelling.labeller import Labeller, Labelling
from raysr.ipl.plugins import RECOGNISERS
from raysr.ipl.predictions import Predictions
from raysr.model.config import ModelConfig
from raysr.model.model import AsrModel
from raysr.pool import EntryConfig, Pool
from raysr.teachers.base import TeacherContext, TeacherOutput
from raysr.teachers.pool_model import PoolModel
from raysr.text.tokeniser import Tokeniser, TokeniserConfig

BLOCK, WINDOW, BLOCK_SECONDS = 32, 8, 600.0
LEAD_IN = 6  # the block of each worker in which timing may begin
STORE_MB = 512


class Watched(PoolModel):
    """A pool entry as teacher that leaves a file when its process is in the first block that is timed."""

    class Config(PoolModel.Config):
        """``seen``: the folder for these files."""

        seen: str

    def __init__(self, config: Config, context: TeacherContext) -> None:
        super().__init__(config, context)
        self._seen, self._blocks = Path(config.seen), 0

    def transcribe_features(self, features: Sequence[Tensor]) -> list[TeacherOutput]:
        self._blocks += 1
        if self._blocks == LEAD_IN:
            self._seen.mkdir(parents=True, exist_ok=True)
            (self._seen / str(os.getpid())).touch()
        return super().transcribe_features(features)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--rounds", type=int, default=5, help="pairs for each number of workers")
    parser.add_argument("--utterances", type=int, default=1600, help="that each of a pair labels")
    parser.add_argument(
        "--stream-gb", type=float, default=2.0, help="size of the corpus that streams; 0 skips it"
    )
    parser.add_argument("--no-throughput", action="store_true", help="the stream alone")
    parser.add_argument("--work", type=Path, help="folder for what is written; a temporary one otherwise")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"machine": {"cpus": os.cpu_count(), "niceness": os.nice(0)}}
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        if not options.no_throughput:
            with connect(ClusterConfig(object_store_mb=STORE_MB), [Path.cwd()]):
                results |= throughput(Path(folder), options.rounds, options.utterances)
        if options.stream_gb:
            corpus = Path(folder) / "corpus"
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(
                1, spawn, max_tasks_per_child=1
            ) as fresh:  # so that peaks are each one's own
                fresh.submit(synthetic_corpus, corpus, round(options.stream_gb * 1e9)).result()
                results["stream"] = fresh.submit(stream, Path(folder), corpus).result()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


def throughput(folder: Path, rounds: int, count: int) -> dict[str, Any]:
    """Label in pairs of turns, each beginning with the other; return speeds and the medians of their ratios."""
    entry = publish_teacher(folder / "pool")
    corpus = open_manifest(list(demo_corpus().unlabelled)[:count])
    pairs: dict[str, list[dict[str, float]]] = {"1": [], "2": []}
    for number in range(rounds):
        for workers in (1, 2):
            turns = [("bare", bare), ("ray", on_ray)]
            pair = {}
            for name, run in turns if number % 2 else turns[::-1]:
                out = folder / f"{name}-{workers}-{number}"
                kind = f"{Watched.__module__.replace('__main__', 'benchmarks.label')}:Watched"
                run(out, corpus, Spec(kind=kind, entries=[entry], seen=str(out / "seen")), workers)
                pair[name] = round(speed(out, corpus, workers), 2)
            pairs[str(workers)].append(pair)
            print(workers, pair, f"{pair['ray'] / pair['bare']:.3f}", flush=True)
    return {
        "ratio_vs_bare": {
            workers: round(statistics.median(p["ray"] / p["bare"] for p in found), 4)
            for workers, found in pairs.items()
        },
        "times_real_time": pairs,
        "seconds_of_audio": round(sum(u.duration for u in corpus), 1),
    }


def publish_teacher(root: Path) -> str:
    """Publish a model of the default size with random weights: it takes the time of one that knows something."""
    torch.manual_seed(0)
    tokeniser = Tokeniser.train([u.text or "" for u in demo_corpus().labelled], TokeniserConfig())
    model = AsrModel(ModelConfig(), tokeniser.vocab_size)
    entry = Pool(root).publish(
        "teacher", model, tokeniser, None, {}, EntryConfig(decode=DecodeConfig(method="greedy"))
    )
    return str(entry.path)


def on_ray(out: Path, corpus: Manifest, teacher: Spec, workers: int) -> None:
    """Label by a pool of actors."""
    recogniser = Spec(
        kind="ray",
        block=BLOCK,
        bucket=WINDOW,
        block_seconds=BLOCK_SECONDS,
        precompute=False,
        actors={"min": workers, "max": workers},
    )
    RECOGNISERS.build(recogniser, context(out))(corpus, [teacher])


def bare(out: Path, corpus: Manifest, teacher: Spec, workers: int) -> None:
    """Label by processes that know no Ray; whoever is free takes the next block."""
    work = list(blocks(corpus, BLOCK, BLOCK_SECONDS, WINDOW))
    spawn = multiprocessing.get_context("spawn")
    ready, taken = spawn.Barrier(workers), spawn.Value("i", 0)
    processes = [
        spawn.Process(target=_label_bare, args=(out, work, teacher, ready, taken)) for _ in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def _label_bare(out: Path, work: Sequence[list[Utterance]], teacher: Spec, ready: Any, taken: Any) -> None:
    torch.set_num_threads(1)
    labeller = Labeller(
        Labelling([teacher], 0, out / "predictions", FeatureCache(out / "cache"), longest=120.0)
    )
    ready.wait()
    while True:
        with taken.get_lock():
            number = taken.value
            taken.value += 1
        if number >= len(work):
            return
        labeller(work[number])


def speed(out: Path, corpus: Manifest, workers: int) -> float:
    """Return seconds of audio labelled in a second, after the last worker's lead-in, by when files were written."""
    assert Predictions(out / "predictions").ids() == {u.id for u in corpus}
    seen = [path.stat().st_mtime_ns for path in (out / "seen").iterdir()]
    assert len(seen) == workers, f"{len(seen)} of {workers} workers came to their block {LEAD_IN}"
    written = sorted(
        (path.stat().st_mtime_ns, sum(pq.read_table(path, columns=["duration"])["duration"].to_pylist()))
        for path in (out / "predictions").glob("*.parquet")
    )
    timed = [(when, seconds) for when, seconds in written if when >= max(seen)]
    return sum(seconds for _, seconds in timed[1:]) / ((timed[-1][0] - timed[0][0]) / 1e9)


def stream(folder: Path, shards: Path) -> dict[str, Any]:
    """Stream a folder of shards through, with this process as the driver; return what it took."""
    corpus = open_manifest(shards)
    recogniser = Spec(
        kind="ray", features="tasks", block=8, block_seconds=120.0, bucket=1, actors={"min": 1, "max": 2}
    )
    teacher = Spec(kind=f"{Loudness.__module__}:Loudness")
    before, started = peak_rss_mb(), time.monotonic()
    with connect(ClusterConfig(object_store_mb=STORE_MB), [Path.cwd()]), StoreWatch() as store:
        rows = RECOGNISERS.build(recogniser, context(folder / "stream"))(corpus, [teacher]).ids()
    return {
        "gb": round(sum(p.stat().st_size for p in shards.glob("*.parquet")) / 1e9, 2),
        "utterances": len(corpus),
        "rows": len(rows),
        "hours": round(sum(u.duration for u in corpus) / 3600, 2),
        "seconds": round(time.monotonic() - started, 1),
        "driver_peak_rss_mb": peak_rss_mb(),
        "driver_peak_rss_before_mb": before,
        "object_store_limit_mb": STORE_MB,
        "object_store_peak_mb": round(store.peak / (1 << 20), 1),
        "spilled_mb": round(store.spilled / (1 << 20), 1),
    }


if __name__ == "__main__":
    main()
