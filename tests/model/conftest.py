"""Small models and batches for the tests of this folder."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from raysr.model.config import DecoderConfig, EncoderConfig, ModelConfig
from raysr.model.model import AsrModel

VOCABULARY = 7


class Batch(NamedTuple):
    """The arguments of a loss."""

    features: Tensor
    lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor


@pytest.fixture(scope="session")
def make_model() -> Callable[..., AsrModel]:
    """Return a builder of small models, in eval mode, with a CMVN that matters."""

    def make(
        ctc_weight: float = 0.5,
        label_smoothing: float = 0.1,
        dropout: float = 0.1,
        decoder: str = "transformer",
        reverse_weight: float = 0.0,
        **encoder: Any,
    ) -> AsrModel:
        torch.manual_seed(0)
        sizes = {
            "dim": 16,
            "layers": 2,
            "heads": 2,
            "feed_forward": 24,
            "kernel": 5,
            "subsampling_channels": 4,
        }
        if encoder.get("kind") == "blstm":
            sizes["layers"] = 4  # the fewest that subsampling 8 takes
        config = ModelConfig(
            mel_bins=32,
            encoder=EncoderConfig(dropout=dropout, **(sizes | encoder)),
            decoder=DecoderConfig(
                kind=decoder,
                reverse_layers=int(reverse_weight > 0),
                heads=2,
                feed_forward=24,
                location_kernel=5,
                dropout=dropout,
            ),
            ctc_weight=ctc_weight,
            reverse_weight=reverse_weight,
            label_smoothing=label_smoothing,
        )
        model = AsrModel(config, VOCABULARY)
        model.set_cmvn(torch.linspace(-1, 1, 32), torch.linspace(0.5, 2, 32))
        return model.eval()

    return make


@pytest.fixture
def batch() -> Batch:
    """Three utterances of different lengths, each long enough for its tokens."""
    generator = torch.Generator().manual_seed(5)
    return Batch(
        features=torch.randn(3, 60, 32, generator=generator),
        lengths=torch.tensor([60, 35, 48]),
        tokens=torch.tensor([[3, 4, 4, 5], [6, 0, 0, 0], [3, 6, 5, 0]]),
        token_lengths=torch.tensor([4, 1, 3]),
    )
