"""A student's first weights: freshly drawn, or those of a model with another vocabulary."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from raysr.audio.cmvn import CmvnAccumulator
from raysr.corpus.utterance import Utterance
from raysr.errors import RaysrError, RunError
from raysr.model.config import ModelConfig
from raysr.model.model import BY_TOKEN, AsrModel
from raysr.text.tokeniser import Tokeniser
from raysr.train.checkpoint import save_weights
from raysr.train.reading.reader import FeatureReader


def write_scratch(
    path: Path,
    model: ModelConfig,
    vocab_size: int,
    utterances: Iterable[Utterance],
    reader: FeatureReader,
    seed: int,
) -> None:
    """Write a new student: weights drawn from `seed`, CMVN estimated over those `utterances` that can be read.

    Raises:
        RaysrError: none can; says why of the last one.
    """
    statistics, failed = CmvnAccumulator(), None
    for utterance in utterances:
        try:
            statistics.add(reader.get(utterance).float())
        except RaysrError as error:
            failed = error
    if failed is not None and statistics.frames == 0:
        raise failed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = AsrModel(model, vocab_size)
    student.set_cmvn(*statistics.finish())
    save_weights(path, student.state_dict())


def transplant(weights: Path, tokeniser: Tokeniser, fresh: Path, own: Tokeniser) -> bytes:
    """Return, as safetensors, the ``weights`` of a model with ``tokeniser`` made to fit a student of ``own``.

    A piece that both tokenisers have keeps its rows in the heads and the embedding; one that is new takes those
    of the ``fresh`` student. CMVN is that of ``weights``, which the encoder was trained behind.

    Raises:
        RunError: the models differ in more than their vocabulary; names the first tensor.
    """
    given, student = load_file(weights), load_file(fresh)
    row = {tokeniser.piece(token): token for token in range(tokeniser.vocab_size)}
    shared = [(token, row[own.piece(token)]) for token in range(own.vocab_size) if own.piece(token) in row]
    here, there = (list(tokens) for tokens in zip(*shared, strict=True))
    for name in sorted({*given, *student}):
        old, new = given.get(name), student.get(name)
        by_token = name in BY_TOKEN
        if old is None or new is None or old.shape[by_token:] != new.shape[by_token:]:
            shapes = " and ".join("none" if t is None else str(tuple(t.shape)) for t in (old, new))
            raise RunError(
                f"{weights} has another model than this run: {name} is {shapes}; give `model` its settings"
            )
        if by_token:
            new[here] = old[there]
        else:
            student[name] = old
    return save(student)
