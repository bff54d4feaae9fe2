"""Noise and music behind cached features, a new piece at every visit.

The energies of two independent sounds add up in every mel bin, so adding takes no waveform: the sum of two
log-mel spectra is the logarithm of the sum of their exponentials (the noise model of Acero, 1990, without its
phase term). That is what lets the augmentation of Ko et al. (ICASSP 2017) and MUSAN follow a feature cache.
"""

import math

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from raysr.audio.fbank import Fbank, FbankConfig
from raysr.audio.mix import ACTIVE_RANGE_DB, coloured_noise
from raysr.audio.music import generate_music
from raysr.config import Config

PIECE_SECONDS = 12


class BackgroundConfig(Config):
    """How often something sounds behind the speech, what, and how loud."""

    share: float = Field(default=0.0, ge=0, le=1)
    """The share of utterances that get a background; 0 switches it off."""
    music: float = Field(default=0.6, ge=0, le=1)
    """The share of backgrounds that are music; the others are white, pink or brown noise."""
    snr_db: tuple[float, float] = (3.0, 20.0)
    """Lowest and highest ratio of speech to background, drawn uniformly."""
    pieces: int = Field(default=24, ge=1)
    """Recordings of twelve seconds that are generated once; each visit starts at a random place in one."""

    @field_validator("snr_db")
    @classmethod
    def _ordered(cls, snr_db: tuple[float, float]) -> tuple[float, float]:
        if not all(map(math.isfinite, snr_db)) or snr_db[0] > snr_db[1]:
            raise ValueError("snr_db should be a lowest and a highest ratio in dB")
        return snr_db


class Background:
    """Adds generated noise and music to batches of features; the same seed generates the same pieces."""

    def __init__(self, config: BackgroundConfig, fbank: FbankConfig, seed: int = 0) -> None:
        self.config = config
        rate, extract = fbank.sample_rate, Fbank(fbank)
        pieces = []
        for number in range(config.pieces if config.share else 0):
            samples = _piece(number < round(config.music * config.pieces), rate, seed, number)
            log_mel = extract(torch.from_numpy(samples))  # (P, F)
            pieces.append(log_mel - log_mel.logsumexp(1).logsumexp(0) + math.log(len(log_mel)))
        self._pieces = torch.stack(pieces) if pieces else torch.zeros(0)  # (pieces, P, F), mean energy 1

    def __call__(self, features: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
        """Return log-mel features (B, T, F) with backgrounds, all drawn from ``generator``.

        The ratio is that of mean mel energies, the speech's over the frames within 35 dB of its loudest. Frames
        at or beyond ``lengths`` (B,) are left as they are.
        """
        if not self.config.share:
            return features
        batch, frames, _ = features.shape
        draws = torch.rand(4, batch, generator=generator)
        piece = (draws[1] * len(self._pieces)).long()  # (B,)
        start = (draws[2] * self._pieces.shape[1]).long()
        low, high = self.config.snr_db
        snr = (low + (high - low) * draws[3]) * (math.log(10) / 10)  # natural-log power units
        inside = torch.arange(frames) < lengths[:, None]  # (B, T)
        level = _active_level(features, inside) - snr  # (B,)
        place = (start[:, None] + torch.arange(frames)) % self._pieces.shape[1]  # (B, T)
        background = self._pieces[piece[:, None], place] + level[:, None, None]
        chosen = inside & (draws[0] < self.config.share)[:, None]
        return torch.where(chosen[:, :, None], torch.logaddexp(features, background), features)


def _piece(music: bool, rate: int, seed: int, number: int) -> np.ndarray:
    generator = np.random.default_rng([seed, number])
    if music:
        return generate_music(PIECE_SECONDS * rate, generator)
    return coloured_noise(PIECE_SECONDS * rate, ("white", "pink", "brown")[number % 3], generator)


def _active_level(features: Tensor, inside: Tensor) -> Tensor:
    """Return the logarithm of the mean energy (B,) of the frames within 35 dB of the loudest one."""
    energy = features.logsumexp(dim=2).masked_fill(~inside, -math.inf)  # (B, T)
    loudest = energy.amax(dim=1, keepdim=True)
    active = energy >= loudest - ACTIVE_RANGE_DB * math.log(10) / 10
    return energy.masked_fill(~active, -math.inf).logsumexp(dim=1) - active.sum(dim=1).log()
