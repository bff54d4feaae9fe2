"""SpecAugment: hide bands of frequencies and spans of time (Park et al., 2019, arXiv:1904.08779)."""

import torch
from pydantic import Field
from torch import Tensor

from raysr.config import Config


class SpecAugmentConfig(Config):
    """How much is hidden; widths are drawn uniformly between zero and the largest."""

    freq_masks: int = Field(default=2, ge=0)
    """Bands hidden in every utterance."""
    freq_width: int = Field(default=10, ge=0)
    """Largest band, in mel bins."""
    time_masks: int = Field(default=2, ge=0)
    """Spans hidden in every utterance."""
    time_width: int = Field(default=50, ge=0)
    """Largest span, in frames."""
    time_share: float = Field(default=0.2, ge=0, le=1)
    """Largest span as a share of the utterance, so that short ones keep most of their speech."""


def spec_augment(
    features: Tensor, lengths: Tensor, config: SpecAugmentConfig, generator: torch.Generator | None = None
) -> Tensor:
    """Return a copy of features (B, T, F) with masks, each utterance its own, all drawn from ``generator``.

    A masked value becomes its bin's mean over the utterance: features come unnormalised, so zero would be a
    loud spot rather than a hole. Frames at or beyond ``lengths`` (B,) are left as they are.
    """
    batch, frames, bins = features.shape
    lengths = lengths.to(features.device)
    inside = torch.arange(frames, device=features.device) < lengths[:, None]  # (B, T)
    longest = (lengths * config.time_share).long().clamp_max(config.time_width)  # (B,)
    time = _spans(frames, lengths, longest, config.time_masks, generator)  # (B, T)
    every = torch.full((batch,), bins, device=features.device)
    widest = torch.full((batch,), min(config.freq_width, bins), device=features.device)
    band = _spans(bins, every, widest, config.freq_masks, generator)  # (B, F)
    masked = (time[:, :, None] | band[:, None, :]) & inside[:, :, None]  # (B, T, F)
    total = (features * inside[:, :, None]).sum(dim=1, keepdim=True)  # (B, 1, F)
    mean = total / lengths.clamp_min(1)[:, None, None]
    return torch.where(masked, mean.to(features.dtype), features)


def _spans(size: int, ends: Tensor, longest: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Return where (B, size) any of ``count`` spans lies, of up to ``longest`` (B,) before ``ends`` (B,)."""
    shape = (2, len(ends), count)
    device = generator.device if generator else torch.device("cpu")
    draws = torch.rand(shape, generator=generator, device=device).to(ends.device)  # (2, B, count)
    width = (draws[0] * (longest[:, None] + 1)).long()  # (B, count)
    start = (draws[1] * (ends[:, None] - width + 1)).long()  # (B, count)
    position = torch.arange(size, device=ends.device)  # (size,)
    within = (position >= start[:, :, None]) & (position < (start + width)[:, :, None])  # (B, count, size)
    return within.any(dim=1)
