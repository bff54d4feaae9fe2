"""The memory finder on the device: the largest batch under a limit, measured and not guessed."""

from collections.abc import Iterator

from raysr.train.check.bench import Bench
from raysr.train.check.finding import Finding, faults
from raysr.train.choices import TrialStudent
from raysr.train.memory.find import find_largest_batch
from raysr.train.memory.shapes import Lengths, Shape
from raysr.train.memory.trial import Trials

LEAST = 0.5
"""Share of the room that what is found should make use of."""


def check_memory(bench: Bench) -> Iterator[Finding]:
    """Find the largest batch with little room beside a student at rest."""
    job = bench.job()
    make = TrialStudent(job, bench.tokeniser.vocab_size)
    with Trials(make, bench.device) as trials:
        [resting] = trials.peaks([Shape(1, job.model.encoder.subsampling * 4, 1)])
    assert resting is not None
    frames = [bench.cache.frames(utterance) for utterance in bench.corpus]
    tokens = [len(bench.tokeniser.encode(utterance.text or "")) for utterance in bench.corpus]
    lengths = Lengths([frames], [tokens], [1.0], job.train.max_padding)
    limit = resting + bench.size.memory
    names = [utterance.id for utterance in bench.corpus]
    found = find_largest_batch(make, lengths, names, bench.device, limit=limit)
    used = (found.peak - resting) / bench.size.memory
    seconds = found.seconds(job.features.frame_shift_ms)
    said = (
        f"{seconds:.0f} s of audio in {bench.size.memory >> 20} MiB beside the student: "
        f"{found.peak - resting >> 20} MiB measured, {found.predicted - resting >> 20} MiB expected"
    )
    faulty = faults(
        more_than_the_limit_was_taken=found.peak > limit,
        room_was_left=used < LEAST and found.batch_frames < sum(frames),
    )
    numbers = {
        "batch_seconds": seconds,
        "peak_bytes": found.peak,
        "predicted_bytes": found.predicted,
        "limit_bytes": limit,
        "resting_bytes": resting,
    }
    yield Finding("memory finder", said, numbers, faulty)
