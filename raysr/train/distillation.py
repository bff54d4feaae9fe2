"""What a student learns beside its labels: a teacher's distributions or a teacher's texts, made ready for batches."""

import math
from collections.abc import Sequence
from typing import Literal, Protocol, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from raysr.config import Config
from raysr.corpus.utterance import Utterance
from raysr.model.distillation import Distributions, SequenceLevel, WordLevel
from raysr.text.tokeniser import Tokeniser
from raysr.train.distributions import StoredDistributions

TEACHER_TEXT = "teacher_text"
"""The key of an utterance's ``custom`` that holds what a teacher made of its audio."""


class WordConfig(Config):
    """Word-level distillation: at every token the teacher's distribution, its ``top`` likeliest tokens being stored.

    The attention loss is (1 - weight) x that of the labels + weight x temperature² x KL(teacher || student).
    """

    weight: float = Field(default=0.5, ge=0, le=1)
    temperature: float = Field(default=1.0, gt=0)
    top: int = Field(default=8, ge=1)


class SequenceConfig(Config):
    """Sequence-level distillation on labelled audio: (1 - weight) x loss of its text + weight x loss of a teacher's.

    The teacher's text is the ``best`` of its beam, or of its n-best list the ``nearest`` to the reference.
    """

    weight: float = Field(default=0.5, ge=0, le=1)
    text: Literal["best", "nearest"] = "best"


class DistillationConfig(Config):
    """Distillation from the teachers of the cycle (Kim & Rush 2016, arXiv:1606.07947); null is none."""

    word: WordConfig | None = None
    sequence: SequenceConfig | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.word and self.sequence:
            raise ValueError("word and sequence are two ways to distil: choose one")
        return self


class Targets(Protocol):
    """What a teacher has to say of any batch."""

    def __call__(self, indices: Sequence[int]) -> WordLevel | SequenceLevel | None:
        """Return the targets of these utterances, or nothing if the teacher has none for any of them."""
        ...


class WordTargets:
    """A teacher's stored distributions; utterances that have none, or had another text, learn their labels alone."""

    def __init__(
        self,
        utterances: Sequence[Utterance],
        tokens: Sequence[Tensor],
        stored: StoredDistributions,
        config: WordConfig,
    ) -> None:
        self.utterances, self.tokens, self.stored, self.config = utterances, tokens, stored, config

    def __call__(self, indices: Sequence[int]) -> WordLevel | None:
        found = [self.stored.get(self.utterances[i].id, self.tokens[i].numpy()) for i in indices]
        if not any(found):
            return None
        longest = max(len(self.tokens[i]) for i in indices) + 1
        k = self.stored.k
        log_probs = np.full((len(indices), longest, k), -np.log(k), dtype=np.float16)  # (B, U + 1, K)
        ids = np.broadcast_to(np.arange(k, dtype=np.int32), log_probs.shape).copy()
        for row, each in enumerate(found):
            if each is not None:
                log_probs[row, : len(each.ids)], ids[row, : len(each.ids)] = each
        weight = torch.tensor([self.config.weight * (each is not None) for each in found])
        teacher = Distributions(torch.from_numpy(log_probs), torch.from_numpy(ids))
        return WordLevel(teacher, weight, self.config.temperature)


class SequenceTargets:
    """The texts of a teacher, where utterances carry one (see :data:`TEACHER_TEXT`)."""

    def __init__(
        self,
        utterances: Sequence[Utterance],
        tokens: Sequence[Tensor],
        tokeniser: Tokeniser,
        config: SequenceConfig,
    ) -> None:
        self.config = config
        self.known = [bool(u.custom.get(TEACHER_TEXT)) for u in utterances]
        self.tokens = [
            torch.tensor(tokeniser.encode(str(u.custom[TEACHER_TEXT]))) if known else own
            for u, known, own in zip(utterances, self.known, tokens, strict=True)
        ]

    def __call__(self, indices: Sequence[int]) -> SequenceLevel | None:
        if not any(self.known[i] for i in indices):
            return None
        tokens = [self.tokens[i] for i in indices]
        return SequenceLevel(
            pad_sequence(tokens, batch_first=True),
            torch.tensor([len(t) for t in tokens]),
            torch.tensor([self.config.weight * self.known[i] for i in indices]),
        )


def random_targets(
    tokens: Tensor, lengths: Tensor, vocab_size: int, config: DistillationConfig
) -> WordLevel | SequenceLevel | None:
    """Return what a teacher says who has something to say of every utterance: of the shapes that training has."""
    if config.sequence:
        return SequenceLevel(tokens, lengths, torch.full((len(tokens),), config.sequence.weight))
    if config.word is None:
        return None
    k = min(config.word.top, vocab_size)
    ids = torch.arange(k, dtype=torch.int32).expand(len(tokens), tokens.shape[1] + 1, k).contiguous()
    log_probs = torch.full(ids.shape, -math.log(k), dtype=torch.float16)
    weight = torch.full((len(tokens),), config.word.weight)
    return WordLevel(Distributions(log_probs, ids), weight, config.word.temperature)


def to_device(
    targets: WordLevel | SequenceLevel | None, device: torch.device
) -> WordLevel | SequenceLevel | None:
    """Return the targets with their tensors on ``device``."""
    if isinstance(targets, WordLevel):
        log_probs, ids = targets.teacher
        teacher = Distributions(_there(log_probs, device), None if ids is None else _there(ids, device))
        return targets._replace(teacher=teacher, weight=_there(targets.weight, device))
    if isinstance(targets, SequenceLevel):
        return SequenceLevel(*(_there(part, device) for part in targets))
    return None


def _there(value: Tensor | float, device: torch.device) -> Tensor:
    return torch.as_tensor(value).to(device, non_blocking=True)
