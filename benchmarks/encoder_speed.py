"""How fast encoders are on one core: over whole utterances, and chunk by chunk as in a stream."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from benchmarks.model_scores import STREAM, computes
from raysr.model.model import AsrModel
from raysr.model.streaming import Streamer


def real_time_factors(
    models: Mapping[str, AsrModel], features: Sequence[Tensor], rounds: int = 5
) -> dict[str, dict[str, float]]:
    """Return CPU time / audio time of every encoder: ``whole``, and ``stream`` where it streams so.

    Args:
        models: by name, in eval mode; they take turns.
        features: raw fbank (T, mel_bins) of utterances, one at a time.
        rounds: the median of so many counts.
    """
    audio = sum(len(f) for f in features) / 100
    ways: dict[tuple[str, str], Callable[[Tensor], object]] = {}
    for name, model in models.items():
        ways[name, "whole"] = lambda f, model=model: model.encode(f[None], torch.tensor([len(f)]))
        if computes(model, STREAM._replace(ahead=0)):
            ways[name, "stream"] = lambda f, model=model: stream(model, f)
    seconds: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    with torch.inference_mode():
        for _ in range(rounds):
            for way, encode in ways.items():
                started = time.process_time()
                for utterance in features:
                    encode(utterance)
                seconds[way].append(time.process_time() - started)
    found: dict[str, dict[str, float]] = {name: {} for name in models}
    for (name, way), taken in seconds.items():
        found[name][way] = round(statistics.median(taken) / audio, 5)
    return found


def stream(model: AsrModel, features: Tensor) -> None:
    """Encode an utterance chunk by chunk."""
    streamer = Streamer(model, *STREAM)
    slot = streamer.join()
    streamer.push(slot, features)
    while streamer.step():
        pass
    streamer.finish(slot)
