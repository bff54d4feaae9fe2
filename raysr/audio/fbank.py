"""Log-mel filter banks in Kaldi's scale, of a whole waveform or online: both give the same features."""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor

from raysr.config import Config

BLOCK_FRAMES = 1000
INT16_SCALE = 32768.0


class FbankConfig(Config):
    """How waveforms become features; the defaults are Kaldi's, at 16 kHz with 80 bins."""

    sample_rate: int = Field(default=16000, ge=1000)
    """Of the waveform, in Hz."""
    mel_bins: int = Field(default=80, ge=4)
    """Features a frame."""
    frame_length_ms: float = Field(default=25.0, gt=0)
    """Length of the analysis window."""
    frame_shift_ms: float = Field(default=10.0, gt=0)
    """From one frame to the next."""
    low_freq: float = Field(default=20.0, ge=0)
    """Lower edge of the first mel bin, in Hz."""
    high_freq: float = 0.0
    """Upper edge of the last mel bin, in Hz; zero or less counts from the Nyquist frequency."""
    preemphasis: float = Field(default=0.97, ge=0, le=1)
    """Coefficient of the first-order high-pass filter."""

    @model_validator(mode="after")
    def _check_edges(self) -> "FbankConfig":
        if not self.low_freq < self.upper_edge <= self.sample_rate / 2:
            raise ValueError("low_freq should lie below high_freq, and high_freq at or below sample_rate / 2")
        if self.window_samples < 2 or self.shift_samples < 1:
            raise ValueError("frame_length_ms and frame_shift_ms should hold at least one sample")
        return self

    @property
    def upper_edge(self) -> float:
        return self.high_freq if self.high_freq > 0 else self.sample_rate / 2 + self.high_freq

    @property
    def window_samples(self) -> int:
        return int(self.sample_rate * self.frame_length_ms / 1000)

    @property
    def shift_samples(self) -> int:
        return int(self.sample_rate * self.frame_shift_ms / 1000)

    def frames(self, samples: int) -> int:
        """Return how many whole frames ``samples`` hold (no padding at the edges)."""
        return max(0, 1 + (samples - self.window_samples) // self.shift_samples)


class Fbank:
    """Features of a whole waveform. Cheap to build and to pickle: equal configurations share their tables.

    Equal to Kaldi's ``compute-fbank-feats`` with dither 0, snip-edges, a Povey window and no energy, on
    samples scaled to 16-bit integers (https://kaldi-asr.org/doc/feat.html).
    """

    def __init__(self, config: FbankConfig | None = None) -> None:
        self.config = config or FbankConfig()

    def __call__(self, waveform: Tensor) -> Tensor:
        """Return features (T, mel_bins) of a waveform (N,) in [-1, 1], float32 under autocast too; T may be 0."""
        count = self.config.frames(len(waveform))
        if count == 0:
            return waveform.new_zeros((0, self.config.mel_bins), dtype=torch.float32)
        frames = waveform.to(torch.float32).unfold(0, self.config.window_samples, self.config.shift_samples)
        with torch.autocast(waveform.device.type, enabled=False):  # power reaches 1e11, float16 ends at 65504
            return torch.cat([self._features(block) for block in frames.split(BLOCK_FRAMES)])  # (T, F)

    def _features(self, frames: Tensor) -> Tensor:
        tables = _tables(self.config)
        frames = frames * INT16_SCALE  # (T, W)
        frames = frames - frames.mean(dim=1, keepdim=True)
        previous = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
        frames = (frames - self.config.preemphasis * previous) * tables.window.to(frames.device)
        power = torch.fft.rfft(frames, n=tables.fft_size).abs().square()  # (T, fft_size / 2 + 1)
        energies = power[:, :-1] @ tables.mel.to(frames.device)  # (T, F)
        return energies.clamp_min(torch.finfo(torch.float32).eps).log()


class OnlineFbank:
    """Features of a stream: what ``push`` returns, joined, is what :class:`Fbank` gives for the whole."""

    def __init__(self, config: FbankConfig | None = None) -> None:
        self._fbank = Fbank(config)
        self._pending = torch.zeros(0)

    def push(self, samples: Tensor) -> Tensor:
        """Take samples (N,) and return the frames (t, mel_bins) that they complete."""
        pending = torch.cat([self._pending.to(samples.device), samples.to(torch.float32)])
        features = self._fbank(pending)
        self._pending = pending[len(features) * self._fbank.config.shift_samples :].clone()
        return features


class _Tables(NamedTuple):
    window: Tensor  # (W,)
    mel: Tensor  # (fft_size / 2, F)
    fft_size: int


@lru_cache(maxsize=16)
def _tables(config: FbankConfig) -> _Tables:
    fft_size = 1 << (config.window_samples - 1).bit_length()
    hann = torch.hann_window(config.window_samples, periodic=False, dtype=torch.float64)
    return _Tables(hann.pow(0.85).float(), _mel_banks(config, fft_size), fft_size)


def _mel_banks(config: FbankConfig, fft_size: int) -> Tensor:
    """Return triangular weights (fft_size / 2, mel_bins), equally wide on the scale 1127 ln(1 + f / 700)."""
    low, high = (1127.0 * math.log1p(edge / 700.0) for edge in (config.low_freq, config.upper_edge))
    width = (high - low) / (config.mel_bins + 1)
    left = low + width * torch.arange(config.mel_bins, dtype=torch.float64)  # (F,)
    hertz = torch.arange(fft_size // 2, dtype=torch.float64) * config.sample_rate / fft_size
    mel = 1127.0 * torch.log1p(hertz / 700.0)[:, None]  # (fft_size / 2, 1)
    rising, falling = (mel - left) / width, (left + 2 * width - mel) / width
    return torch.minimum(rising, falling).clamp_min(0.0).float()
