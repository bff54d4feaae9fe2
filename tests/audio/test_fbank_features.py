"""Filter banks equal Kaldi's, as kaldi-native-fbank computes them; online equals batch."""

import pickle
from itertools import pairwise

import kaldi_native_fbank
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raysr.audio.fbank import Fbank, FbankConfig, OnlineFbank
from raysr.errors import ConfigError

CONFIGS = [
    FbankConfig(),
    FbankConfig(sample_rate=8000, mel_bins=40, high_freq=-200.0),
    FbankConfig(mel_bins=23, frame_length_ms=20.0, frame_shift_ms=5.0, low_freq=0.0, preemphasis=0.0),
    FbankConfig(sample_rate=22050, high_freq=8000.0),
]


def waveform(samples: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    level = torch.linspace(1e-3, 0.5, samples)
    return torch.randn(samples, generator=generator) * level


def kaldi(signal: Tensor, config: FbankConfig) -> Tensor:
    """Return the features (T, mel_bins) of an independent C++ implementation."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.samp_freq = config.sample_rate
    options.frame_opts.frame_length_ms = config.frame_length_ms
    options.frame_opts.frame_shift_ms = config.frame_shift_ms
    options.frame_opts.preemph_coeff = config.preemphasis
    options.mel_opts.num_bins = config.mel_bins
    options.mel_opts.low_freq = config.low_freq
    options.mel_opts.high_freq = config.high_freq
    reference = kaldi_native_fbank.OnlineFbank(options)
    reference.accept_waveform(config.sample_rate, (signal * 32768).tolist())
    reference.input_finished()
    return torch.from_numpy(np.stack([reference.get_frame(n) for n in range(reference.num_frames_ready)]))


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("seconds", [0.03, 1.0, 11.0])
def test_equals_the_kaldi_reference(config: FbankConfig, seconds: float) -> None:
    signal = waveform(int(config.sample_rate * seconds))
    expected = kaldi(signal, config)
    actual = Fbank(config)(signal)
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)


@given(samples=st.integers(0, 5000), cuts=st.lists(st.integers(0, 5000), max_size=12))
@settings(max_examples=60)
def test_any_split_of_a_stream_gives_the_batch_features(samples: int, cuts: list[int]) -> None:
    signal, online = waveform(samples), OnlineFbank()
    bounds = [0, *sorted(min(cut, samples) for cut in cuts), samples]
    parts = [online.push(signal[a:b]) for a, b in pairwise(bounds)]
    torch.testing.assert_close(torch.cat(parts), Fbank()(signal), rtol=0, atol=1e-4)


def test_a_stream_keeps_less_than_a_window() -> None:
    online = OnlineFbank()
    for _ in range(50):
        online.push(waveform(333))
    assert len(online._pending) < 400


@pytest.mark.parametrize("level", [0.0, 0.5, -1.0])
def test_silence_is_finite_and_at_the_floor(level: float) -> None:
    features = Fbank()(torch.full((16000,), level))
    assert torch.isfinite(features).all()
    assert (features < 0).all()


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 0), (399, 0), (400, 1), (559, 1), (560, 2)])
def test_only_whole_windows_become_frames(samples: int, frames: int) -> None:
    features = Fbank()(waveform(samples))
    assert features.shape == (frames, 80)
    assert features.dtype == torch.float32
    assert FbankConfig().frames(samples) == frames


def test_pickles_as_its_configuration_alone() -> None:
    fbank = Fbank(CONFIGS[1])
    data = pickle.dumps(fbank)
    assert len(data) < 1500
    signal = waveform(4000)
    assert torch.equal(pickle.loads(data)(signal), fbank(signal))


@pytest.mark.parametrize(
    "options",
    [{"high_freq": 9000}, {"low_freq": 8000}, {"mel_bins": 2}, {"frame_shift_ms": 0.01}, {"mel_bin": 80}],
)
def test_impossible_configurations_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        FbankConfig.parse(options)
