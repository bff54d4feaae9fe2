"""From utterances to padded, augmented tensors: every draw is a function of (seed, step, rank)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raysr.audio.background import Background
from raysr.audio.specaugment import spec_augment
from raysr.audio.warp import warp
from raysr.corpus.utterance import Utterance
from raysr.errors import CorpusError
from raysr.model.distillation import SequenceLevel, WordLevel
from raysr.text.tokeniser import Tokeniser
from raysr.train.distillation import DistillationConfig, Targets, random_targets, to_device
from raysr.train.job import AugmentConfig
from raysr.train.reading.harder import Harder
from raysr.train.reading.reader import FeatureReader

LOSS_WEIGHT = "loss_weight"
"""The key of an utterance's ``custom`` that says what its loss counts beside the others'."""


@dataclass(frozen=True)
class Batch:
    """One rank's part of a global batch, or a piece of that.

    Attributes:
        features: (B, T, F) augmented log-mel features, zero-padded.
        lengths: (B,) frames.
        tokens: (B, U) token ids, padded with 0.
        token_lengths: (B,).
        weights: (B,) what each utterance's loss counts.
        distillation: what a teacher says of them, if it says anything.
    """

    features: Tensor
    lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor
    weights: Tensor
    distillation: WordLevel | SequenceLevel | None = None

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The first arguments of the model's loss, in its order."""
        return self.features, self.lengths, self.tokens, self.token_lengths

    def dump(self) -> dict[str, Tensor]:
        """Return the tensors by name, without what a teacher says."""
        named = zip(("features", "lengths", "tokens", "token_lengths"), self.tensors, strict=True)
        return {**dict(named), "weights": self.weights}

    def to(self, device: torch.device) -> "Batch":
        features, lengths, tokens, token_lengths, weights = (
            tensor.to(device, non_blocking=True) for tensor in (*self.tensors, self.weights)
        )
        distillation = to_device(self.distillation, device)
        return Batch(features, lengths, tokens, token_lengths, weights, distillation)


class BatchMaker:
    """Reads features and encodes texts once; makes any batch on demand, in any thread.

    ``targets`` adds what a teacher says; None: labels are all there is to learn.
    """

    targets: Targets | None = None

    def __init__(
        self,
        utterances: Sequence[Utterance],
        reader: FeatureReader,
        tokeniser: Tokeniser,
        augment: AugmentConfig,
        seed: int = 0,
        harder: Harder | None = None,
    ) -> None:
        for utterance in utterances:
            if not utterance.text:
                raise CorpusError(f"utterance {utterance.id} has no text to train on")
        self.utterances = utterances
        self.reader, self.harder = reader, harder
        self.augment = augment
        self.background = Background(augment.background, reader.config, seed)
        self.tokens = [torch.tensor(tokeniser.encode(u.text or "")) for u in utterances]
        self.weights = np.array([_loss_weight(u) for u in utterances])

    def make(self, indices: np.ndarray, generator: torch.Generator | None) -> Batch:
        """Return the batch of these utterances, augmented with draws from ``generator``; None: as they are."""
        features = self._features([self.utterances[i] for i in indices], generator)  # (T_i, F)
        lengths = torch.tensor([len(f) for f in features])
        tokens = [self.tokens[i] for i in indices]
        padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)  # (B, T, F)
        if generator is not None:
            padded = self.background(padded, lengths, generator)
            padded, lengths = warp(padded, lengths, self.augment.warp, generator)
            padded = spec_augment(padded, lengths, self.augment.spec, generator)
        return Batch(
            padded,
            lengths,
            torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True),
            torch.tensor([len(t) for t in tokens]),
            torch.from_numpy(self.weights[indices]).float(),
            self.targets(indices.tolist()) if self.targets else None,
        )

    def _features(self, utterances: Sequence[Utterance], generator: torch.Generator | None) -> list[Tensor]:
        """Return features (T_i, F) float32, of audio that was made harder where ``generator`` draws it."""
        if self.harder is None or generator is None:
            return [self.reader.get(u).float() for u in utterances]
        seeds = torch.randint(2**63 - 1, (len(utterances),), generator=generator).tolist()
        harder = [self.harder.get(u, seed) for u, seed in zip(utterances, seeds, strict=True)]
        return [
            self.reader.get(u).float() if f is None else f for u, f in zip(utterances, harder, strict=True)
        ]


def random_batch(
    utterances: int,
    frames: int,
    tokens: int,
    mel_bins: int,
    vocab_size: int,
    distillation: DistillationConfig | None = None,
) -> Batch:
    """Return a batch of noise, every utterance as long as all others, for what depends on shapes alone.

    A teacher, if there is one, has as long texts, and something to say of every utterance.
    """
    texts = torch.randint(1, vocab_size, (utterances, tokens))
    lengths = torch.full((utterances,), tokens)
    return Batch(
        torch.randn(utterances, frames, mel_bins),
        torch.full((utterances,), frames),
        texts,
        lengths,
        torch.ones(utterances),
        random_targets(texts, lengths, vocab_size, distillation) if distillation else None,
    )


def _loss_weight(utterance: Utterance) -> float:
    value = utterance.custom.get(LOSS_WEIGHT, 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 < value < math.inf):
        raise CorpusError(
            f"utterance {utterance.id}: {LOSS_WEIGHT} should be a number above 0, not {value!r}; "
            "leave out what is not to count"
        )
    return float(value)
