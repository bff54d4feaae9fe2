"""A short training by the loop itself: whether it learns, how fast it is, and how long it waits for data."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from raysr.train.check.bench import Bench
from raysr.train.check.finding import Finding, faults
from raysr.train.job import TrainJob
from raysr.train.local import fit_local
from raysr.train.sampler import MixedSampler

MOST_WAIT = 0.5
"""Share of the time; a training that has settled should wait a fiftieth of it at most."""


def check_training(bench: Bench) -> Iterator[Finding]:
    """Train, in one precision or several."""
    for precision in bench.size.precisions:
        yield _training(bench, precision)


def _training(bench: Bench, precision: str) -> Finding:
    """Tell what steps after the first report were like: until then kernels are chosen and features read."""
    job = bench.job(precision)
    weights = load_file(fit_local(job))
    lines = (Path(job.out) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    reports: list[dict[str, Any]] = [json.loads(line) for line in lines]
    first, last, steady = reports[0], reports[-1], reports[1:]
    steps = last["step"] - first["step"]
    seconds = sum(report["seconds_per_step"] for report in steady) / len(steady)
    wait = sum(report["data_wait"] for report in steady) / len(steady)
    utterances, audio = _dealt(bench, job, first["step"], last["step"])
    rates = {"utterances_per_s": utterances / (steps * seconds), "audio_s_per_s": audio / (steps * seconds)}
    said = (
        f"loss {first['loss']:.1f} to {last['loss']:.1f}, {1000 * seconds:.0f} ms a step, "
        f"{rates['utterances_per_s']:.0f} utterances/s, {rates['audio_s_per_s']:.0f} s of audio/s, "
        f"{100 * wait:.1f}% of the time waiting for data"
    )
    found = faults(
        a_loss_is_not_finite=not all(math.isfinite(report["loss"]) for report in reports),
        the_loss_has_not_fallen=not last["loss"] < 0.95 * first["loss"],
        weights_are_not_finite=not all(bool(w.isfinite().all()) for w in weights.values()),
        it_waits_for_data=wait > MOST_WAIT,
    )
    numbers = {
        **rates,
        "seconds_per_step": seconds,
        "data_wait": wait,
        "skipped": last["skipped_steps"],
        "first_loss": first["loss"],
        "last_loss": last["loss"],
    }
    return Finding(f"training ({precision})", said, numbers, found)


def _dealt(bench: Bench, job: TrainJob, after: int, until: int) -> tuple[int, float]:
    """Return the utterances of a job's steps, and their seconds of audio."""
    train, shift = job.train, job.features.frame_shift_ms / 1000
    assert train.batch_seconds != "auto"
    frames = [bench.cache.frames(utterance) for utterance in bench.corpus]
    sampler = MixedSampler([frames], [1.0], round(train.batch_seconds / shift), train.max_padding, job.seed)
    batches = [sampler.next() for _ in range(until)][after:]
    return sum(map(len, batches)), sum(float(sampler.frames[batch].sum()) * shift for batch in batches)
