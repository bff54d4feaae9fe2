"""Tempo and vocal-tract-length warping of log-mel features, one random pair of factors an utterance.

Warping the mel axis imitates shorter and longer vocal tracks (VTLP, Jaitly and Hinton, ICML workshop 2013);
stretching the time axis imitates tempo. Both are one bilinear interpolation, and a random level is added.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from raysr.config import Config


class WarpConfig(Config):
    """Widths of the uniform draws; zero switches a part off."""

    tempo: float = 0.1
    frequency: float = 0.1
    level_db: float = 3.0


def warp(
    features: Tensor, lengths: Tensor, config: WarpConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Warp each utterance of a batch by its own factors.

    Args:
        features: log-mel features (B, T, F), natural logarithm of power.
        lengths: frames of each utterance (B,).
        config: how far to go.
        generator: where the draws come from.

    Returns:
        Features (B, T', F) and their lengths (B,), with T' the longest new length.
    """
    batch, _, bins = features.shape
    tempo, frequency, level = (2 * torch.rand(3, batch, generator=generator) - 1).unbind(0)
    new_lengths = (lengths / (1 + config.tempo * tempo)).round().long().clamp(min=1)
    frames = torch.arange(int(new_lengths.max()))
    time = (frames + 0.5)[None] * (lengths / new_lengths)[:, None] - 0.5  # (B, T')
    time = torch.minimum(time.clamp(min=0), (lengths - 1).clamp(min=0)[:, None].float())
    mel = ((torch.arange(bins) + 0.5)[None] * (1 + config.frequency * frequency)[:, None] - 0.5).clamp(
        0, bins - 1
    )
    grid = torch.stack(
        (
            (_normalised(mel, bins))[:, None, :].expand(-1, frames.numel(), -1),
            (_normalised(time, features.shape[1]))[:, :, None].expand(-1, -1, bins),
        ),
        dim=-1,
    )  # (B, T', F, 2)
    warped = F.grid_sample(
        features[:, None], grid, mode="bilinear", padding_mode="border", align_corners=True
    )
    decibel = 0.2302585  # natural-log power units
    return warped[:, 0] + (level * config.level_db * decibel)[:, None, None], new_lengths


def _normalised(position: Tensor, size: int) -> Tensor:
    return 2 * position / max(size - 1, 1) - 1
