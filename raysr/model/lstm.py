"""The LSTM encoders: LAS's pyramid over whole utterances, and a uni-directional one that streams."""

from collections.abc import Iterable
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from raysr.model.config import EncoderConfig
from raysr.model.encoder import Caches, Encoder
from raysr.model.losses import at_least_float32
from raysr.model.mask import Chunk, valid_frames
from raysr.model.subsampling import Subsampling

REDUCTIONS: dict[int, tuple[int, ...]] = {2: (2,), 4: (2, 2), 6: (2, 3), 8: (2, 2, 2)}
"""Subsampling -> how many neighbouring frames are joined below the second layer, the third one, …"""
Frames = TypeVar("Frames", Tensor, PackedSequence)


def recur(lstm: nn.LSTM, x: Frames) -> Frames:
    """Return the output of an LSTM for whole utterances, in float32 under autocast.

    Its cells add up over an utterance, and cuDNN's would be in float16, without a scaled loss, under autocast to
    bfloat16 (aten/src/ATen/cudnn/AutocastRNN.cpp).
    """
    with torch.autocast(next(lstm.parameters()).device.type, enabled=False):
        out: Frames = lstm(x)[0]
    return out


class PyramidalBlstmEncoder(Encoder):
    """The listener of LAS (Chan et al. 2016, arXiv:1508.01211): BLSTM layers, the upper ones of joined frames.

    The first layer reads every feature frame. Frames at the end that fill no place of the next layer are
    dropped there, so that T' = T // subsampling. A LayerNorm follows every layer, which LAS has not:
    without it a stack of them learns far more slowly.
    """

    streams = False

    def __init__(self, config: EncoderConfig, mel_bins: int) -> None:
        super().__init__()
        self.hop = self.window = config.subsampling
        joined = REDUCTIONS[config.subsampling]
        self.joined = (1, *joined, *[1] * (config.layers - 1 - len(joined)))
        inputs = (mel_bins, *(config.dim * frames for frames in self.joined[1:]))
        self.layers = nn.ModuleList(
            nn.LSTM(size, config.dim // 2, batch_first=True, bidirectional=True) for size in inputs
        )
        self.norms = nn.ModuleList(nn.LayerNorm(config.dim) for _ in inputs)
        self.dropout = nn.Dropout(config.dropout)

    @classmethod
    def check(cls, config: EncoderConfig) -> None:
        needed = 1 + len(REDUCTIONS[config.subsampling])
        if config.layers < needed:
            raise ValueError(
                f"blstm joins frames between layers, so subsampling {config.subsampling} takes {needed} layers "
                f"or more, not {config.layers}"
            )
        if config.dim % 2:
            raise ValueError(f"dim ({config.dim}) must be even, half of it for each direction")

    def forward(self, features: Tensor, lengths: Tensor, chunk: Chunk) -> tuple[Tensor, Tensor]:
        frames = max(features.shape[1], self.window)
        x = nn.functional.pad(features, (0, 0, 0, frames - features.shape[1]))
        left = lengths.cpu()  # a packed sequence wants its lengths there
        for joined, layer, norm in zip(self.joined, self.layers, self.norms, strict=True):
            frames, left = frames // joined, left // joined
            x = x[:, : frames * joined].unflatten(1, (frames, joined)).flatten(2)  # (B, T / joined, …)
            x = at_least_float32(x)
            # Nor may it be empty: an utterance of no frames reads one of its padding.
            packed = pack_padded_sequence(x, left.clamp(min=1), batch_first=True, enforce_sorted=False)
            read = recur(cast("nn.LSTM", layer), packed)
            x, _ = pad_packed_sequence(read, batch_first=True, total_length=frames)
            x = self.dropout(norm(x))
        return x, self.output_frames(lengths)


class LstmCache(NamedTuple):
    """Output and cell of a layer after the last frame of S streams, each (S, D)."""

    hidden: Tensor
    cell: Tensor


class LstmLayer(nn.Module):
    """An LSTM as a pre-norm residual: (B, T, dim) -> (B, T, dim)."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.lstm = nn.LSTM(dim, dim, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(recur(self.lstm, at_least_float32(self.norm(x))))

    def step(self, x: Tensor, cache: LstmCache) -> tuple[Tensor, LstmCache]:
        """Go on from ``cache`` over one chunk (S, c, dim)."""
        out, (hidden, cell) = self.lstm(self.norm(x), (cache.hidden.unsqueeze(0), cache.cell.unsqueeze(0)))
        return x + self.dropout(out), LstmCache(hidden.squeeze(0), cell.squeeze(0))


class LstmEncoder(Encoder):
    """Convolutional subsampling, then LSTM layers and a norm; it streams in chunks of any size."""

    streams = True

    def __init__(self, config: EncoderConfig, mel_bins: int) -> None:
        super().__init__()
        self.subsampling = Subsampling(
            mel_bins, config.dim, config.subsampling, config.subsampling_channels, config.dropout
        )
        self.hop, self.window = self.subsampling.hop, self.subsampling.window
        self.layers = nn.ModuleList(LstmLayer(config.dim, config.dropout) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, features: Tensor, lengths: Tensor, chunk: Chunk) -> tuple[Tensor, Tensor]:
        lengths = self.output_frames(lengths)
        x = self.subsampling(features)
        x = x.masked_fill(~valid_frames(lengths, x.shape[1]).unsqueeze(-1), 0.0)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x), lengths

    def initial_caches(self, slots: int, chunk: Chunk) -> Caches:
        zeros = self.norm.weight.new_zeros(slots, len(self.norm.weight))
        return tuple(LstmCache(zeros.clone(), zeros.clone()) for _ in self.layers)

    def step(
        self, features: Tensor, frames: Tensor, caches: Caches, ahead: int = 0
    ) -> tuple[Tensor, Tensor, Caches]:
        x = self.subsampling(features)  # (S, c, D): nothing is ahead, as in its contexts
        valid = valid_frames(frames, x.shape[1])
        following = []
        for layer, cache in zip(cast("Iterable[LstmLayer]", self.layers), caches, strict=True):
            x, cache = layer.step(x, cache)
            following.append(cache)
        return self.norm(x), valid, tuple(following)
