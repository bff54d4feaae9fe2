"""A student's first weights: freshly drawn, with the CMVN of its training data inside."""

from collections.abc import Iterable
from pathlib import Path

import torch

from raysr.audio.cmvn import CmvnAccumulator
from raysr.corpus.features import FeatureCache
from raysr.corpus.utterance import Utterance
from raysr.model.config import ModelConfig
from raysr.model.model import AsrModel
from raysr.train.checkpoint import save_weights


def write_scratch(
    path: Path,
    model: ModelConfig,
    vocab_size: int,
    utterances: Iterable[Utterance],
    cache: FeatureCache,
    seed: int,
) -> None:
    """Write a new student: weights drawn from `seed`, CMVN estimated over `utterances`."""
    statistics = CmvnAccumulator()
    for utterance in utterances:
        statistics.add(cache.get(utterance).float())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = AsrModel(model, vocab_size)
    student.set_cmvn(*statistics.finish())
    save_weights(path, student.state_dict())
