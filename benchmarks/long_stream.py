"""Memory and speed of a stream that does not end: hours of audio through one session, as fast as it goes.

python -m benchmarks.long_stream --json results/long_stream.json

Test utterances with pauses between them are pushed in packets of a quarter of a chunk through the session that serving
has, with the beam and its language model. A *step* is all that a chunk of audio costs, in CPU time of this process of
one thread. Warm-up is the first quarter of an hour. Memory is what is resident after every minute of audio: its growth
is the slope of a straight line through the minutes after warm-up, and the highest less the lowest of them. The audio
is a loop cut so that the last minute hears what the first one after warm-up heard. In the end the old session and one
that is a minute old take turns at the same audio, which tells an aged session from a slower machine.
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.arms import Comparison, compute_features
from benchmarks.ipl import COMMON
from benchmarks.joined import HISS, RATE
from benchmarks.processes import resident_mb
from raysr.corpus.demo import demo_corpus
from raysr.corpus.load import load_waveform
from raysr.model.chunking import CHUNKING
from raysr.pool import Pool, Recogniser, load_entry
from raysr.stream.events import Event, Final
from raysr.stream.session import Session
from raysr.stream.streaming_model import StreamingModel

WARM_UP, LONGEST_LOOP = 15, 20  # minutes
PACKETS = 4  # a chunk
PAUSE = (0.3, 2.0)  # seconds, between utterances


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--hours", type=float, default=2.0, help="of audio")
    parser.add_argument("--pool", type=Path, help="whose newest entry hears it; one is trained otherwise")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/ipl"), help="for its training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recogniser = newest(options.pool or trained_pool(options.work))
    results = measure(recogniser, round(60 * options.hours), min(WARM_UP, round(15 * options.hours)))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(as_table(results))


def trained_pool(work: Path) -> Path:
    """Return the pool of the first student of `benchmarks.ipl`, which is trained if it is not there."""
    compute_features(work)
    return Comparison(work, {}, COMMON).first_student(1) / "pool"


def newest(pool: Path) -> Recogniser:
    """Load the newest entry of a pool."""
    entry = Pool(pool).latest()
    if entry is None:
        raise SystemExit(f"error: {pool} has no entry")
    return load_entry(entry)


def measure(recogniser: Recogniser, minutes: int, warm_up: int) -> dict[str, Any]:
    """Stream so many minutes and return memory and step times, minute by minute and summed up."""
    chunk = chunk_samples(recogniser)
    audio = spoken_loop(loop_minutes(minutes, warm_up))
    session = Session(StreamingModel(recogniser))
    aged = Stream(session, audio, chunk)
    started = time.perf_counter()
    rows = []
    for minute in range(minutes):
        steps = aged.minute(minute)
        rows.append({"rss_mb": resident_mb(os.getpid()), "step_ms": round(statistics.median(steps), 3)})
        if (minute + 1) % 10 == 0:
            print(f"{minute + 1} minutes: {rows[-1]}", flush=True)
    seconds = time.perf_counter() - started
    settled = rows[warm_up:]
    first, last = settled[0]["step_ms"], settled[-1]["step_ms"]
    return {
        "minutes": minutes,
        "warm_up": warm_up,
        "rtf": round(seconds / (60 * minutes), 4),
        "finals": aged.finals,
        "memory": growth([row["rss_mb"] for row in settled]),
        "step_ms": {"first": first, "last": last, "ratio": round(last / first, 3)},
        "aged_vs_fresh": aged_vs_fresh(
            aged, Stream(Session(StreamingModel(recogniser)), audio, chunk), minutes
        ),
        "malloc": {name: value for name, value in sorted(os.environ.items()) if name.startswith("MALLOC_")},
        "by_minute": rows,
    }


class Stream:
    """A session and the loop of audio that it hears: samples (N,) int16."""

    def __init__(self, session: Session, audio: np.ndarray, chunk: int) -> None:
        self.session, self.audio, self.chunk = session, audio, chunk
        self.finals = 0

    def minute(self, number: int) -> list[float]:
        """Push a minute of audio, all but for the remainder of a chunk; return the milliseconds of every step."""
        return list(self.steps(60 * RATE * number))

    def steps(self, first: int) -> Iterator[float]:
        """Push the minute that begins at sample ``first``, and yield the milliseconds of CPU time of every step."""
        for begin in range(first, first + 60 * RATE, self.chunk):
            end = min(begin + self.chunk, first + 60 * RATE)
            packets = np.array_split(self.heard(begin, end), PACKETS)
            started = time.process_time()
            for packet in packets:
                self.take(self.session.push(packet))
            if end - begin == self.chunk:
                yield 1000 * (time.process_time() - started)

    def heard(self, begin: int, end: int) -> np.ndarray:
        """Return samples of the loop, float32."""
        places = np.arange(begin, end) % len(self.audio)
        return self.audio[places].astype(np.float32) / 32768

    def take(self, events: list[Event]) -> None:
        self.finals += sum(isinstance(event, Final) for event in events)


def chunk_samples(recogniser: Recogniser) -> int:
    """Return the samples between one step of the encoder and the next."""
    hop = recogniser.model.encoder.hop
    return CHUNKING.size * hop * recogniser.config.fbank.shift_samples


def loop_minutes(minutes: int, warm_up: int) -> float:
    """Return the longest loop in which the last minute repeats the first one after warm-up."""
    between = minutes - 1 - warm_up
    return max(1.0, between / math.ceil(max(1, between) / LONGEST_LOOP))


def spoken_loop(minutes: float) -> np.ndarray:
    """Return clean test utterances with pauses of uneven length between them, (N,) int16 at 16 kHz."""
    draws = np.random.default_rng(0)
    wanted = round(60 * RATE * minutes)
    pieces: list[np.ndarray] = []
    heard = 0
    for utterance in demo_corpus().tests["clean"]:
        pause = draws.normal(scale=HISS, size=round(RATE * draws.uniform(*PAUSE)))
        pieces += [load_waveform(utterance), pause]
        heard += len(pieces[-2]) + len(pause)
        if heard >= wanted:
            break
    samples = np.concatenate(pieces)[:wanted]
    return np.clip(np.rint(32768 * samples), -32768, 32767).astype(np.int16)


def growth(resident: list[float]) -> dict[str, float]:
    """Return how memory went, one value a minute: at the ends, and MB an hour by a line and by the extremes."""
    hours = np.arange(len(resident)) / 60
    slope = float(np.polyfit(hours, resident, 1)[0]) if len(resident) > 1 else 0.0
    spread = (max(resident) - min(resident)) / max(float(hours[-1]), 1 / 60)
    return {
        "first_mb": resident[0],
        "last_mb": resident[-1],
        "slope_mb_per_hour": round(slope, 3),
        "range_mb_per_hour": round(spread, 3),
    }


def aged_vs_fresh(aged: Stream, fresh: Stream, minute: int) -> dict[str, float]:
    """Return the median step of both over one minute, in turns, after another one that warms ``fresh`` up."""
    aged.minute(minute), fresh.minute(minute)
    first = 60 * RATE * (minute + 1)
    pairs = list(zip(aged.steps(first), fresh.steps(first), strict=True))
    old, new = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {"aged_ms": round(old, 3), "fresh_ms": round(new, 3), "ratio": round(old / new, 3)}


def as_table(results: dict[str, Any]) -> str:
    """Return the summary as Markdown."""
    memory, step, aged = results["memory"], results["step_ms"], results["aged_vs_fresh"]
    lines = [
        "| minutes | MB after warm-up | at the end | MB an hour, line | extremes | step ms, first | last | ratio "
        "| aged / fresh | RTF |",
        "|---" * 10 + "|",
        f"| {results['minutes']} | {memory['first_mb']} | {memory['last_mb']} | {memory['slope_mb_per_hour']} "
        f"| {memory['range_mb_per_hour']} | {step['first']} | {step['last']} | {step['ratio']} | {aged['ratio']} "
        f"| {results['rtf']} |",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
