"""A model on a test set by each method: whole utterances greedily or with the language model, and as live streams."""

import time
from collections.abc import Callable, Sequence

import torch

from raysr.corpus.features import FeatureCache
from raysr.corpus.load import load_waveform
from raysr.corpus.utterance import Utterance
from raysr.evaluate.alignment import Costs
from raysr.evaluate.evaluate import METHODS, Recognised, check_texts, recognise_part
from raysr.evaluate.outcome import Lateness, Outcome
from raysr.model.chunking import Chunking
from raysr.pool import Recogniser
from raysr.stream.playing import play
from raysr.stream.streaming_model import StreamingModel

PART = 100
"""Utterances recognised between two words on how far it is."""


def recognise_set(
    recogniser: Recogniser,
    name: str,
    utterances: Sequence[Utterance],
    method: str,
    chunking: Chunking,
    cache: FeatureCache,
    costs: Costs = "levenshtein",
    progress: Callable[[int], object] = lambda done: None,
) -> Outcome:
    """Recognise and score a set.

    Args:
        name: of the set.
        utterances: with texts; their features are in ``cache``, except for ``stream``.
        method: one of :data:`raysr.evaluate.evaluate.METHODS`, or ``stream``.
        chunking: of ``stream``.
        costs: that words are aligned by.
        progress: told how many utterances are done.

    What computing took is without the features, except for ``stream``, which makes them as it goes.

    Raises:
        CorpusError: an utterance has no text.
    """
    check_texts(utterances)
    if method == "stream":
        return _streamed(StreamingModel(recogniser, chunking=chunking), name, utterances, costs, progress)
    (chosen,) = (known for known in METHODS if known == method)
    recognised: list[Recognised] = []
    computing = 0.0
    for first in range(0, len(utterances), PART):
        started = time.perf_counter()
        recognised += recognise_part(recogniser, utterances[first : first + PART], cache, chosen)
        computing += time.perf_counter() - started
        progress(len(recognised))
    return Outcome.of(name, method, utterances, recognised, costs, computing)


def _streamed(
    model: StreamingModel,
    name: str,
    utterances: Sequence[Utterance],
    costs: Costs,
    progress: Callable[[int], object],
) -> Outcome:
    recognised, lateness, computing = list[Recognised](), list[Lateness](), 0.0
    for utterance in utterances:
        with torch.inference_mode():
            played = play(model, load_waveform(utterance))
        computing += played.seconds
        recognised.append(Recognised(utterance.id, played.text, played.words))
        late: dict[str, list[float]] = {}
        for one in played.late:
            late.setdefault(f"final_{one.cause}" if one.what == "final" else one.what, []).append(one.seconds)
        lateness.append(Lateness(late, played.taken_back))
        progress(len(recognised))
    return Outcome.of(name, "stream", utterances, recognised, costs, computing, lateness)
