"""Backgrounds: the energy added is what was asked for, as if it were mixed into the waveform, and repeatable."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raysr.audio.background import Background, BackgroundConfig
from raysr.audio.fbank import Fbank, FbankConfig
from raysr.audio.mix import apply_mix, coloured_noise
from raysr.errors import ConfigError


@pytest.fixture(scope="module")
def always() -> Background:
    return Background(BackgroundConfig(share=1.0, snr_db=(10.0, 10.0), pieces=5), FbankConfig())


def speech(frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(frames, 80, generator=torch.Generator().manual_seed(seed)) + 10


@given(frames=st.lists(st.integers(1, 400), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_the_added_energy_has_the_ratio_asked_for(always, frames, seed):
    lengths = torch.tensor(frames)
    features = torch.nn.utils.rnn.pad_sequence([speech(n, n) for n in frames], batch_first=True)
    mixed = always(features, lengths, torch.Generator().manual_seed(seed))
    assert (mixed >= features).all()
    for one, before, length in zip(mixed, features, frames, strict=True):
        assert torch.equal(one[length:], before[length:])
        added = (one[:length].double().exp() - before[:length].double().exp()).sum()
        # over a whole piece the ratio is exact; a few frames of it may be louder or softer
        if length == 400:
            snr = 10 * torch.log10(before[:length].double().exp().sum() / added)
            assert snr == pytest.approx(10, abs=6)


def test_a_whole_piece_has_exactly_the_ratio(always):
    frames = always._pieces.shape[1]
    features = speech(frames)[None].double()
    mixed = always(features, torch.tensor([frames]), torch.Generator().manual_seed(3))
    added = (mixed.exp() - features.exp()).sum()
    assert 10 * torch.log10(features.exp().sum() / added) == pytest.approx(10, abs=1e-3)


def test_adding_energies_is_close_to_mixing_waveforms():
    generator = np.random.default_rng(5)
    voice = np.float32(0.1) * coloured_noise(10 * 16000, "pink", generator)
    noise = {"seed": 1, "noise": {"snr_db": 0.0, "colour": "white"}}
    real = Fbank()(torch.from_numpy(apply_mix(voice, noise)))
    alone = Fbank()(torch.from_numpy(voice))
    added = Fbank()(torch.from_numpy(apply_mix(voice, noise) - voice))
    difference = torch.logaddexp(alone, added) - real
    # the phases of two independent sounds cancel on average, and spread single bins by little
    assert difference.mean().abs() < 0.2
    assert difference.std() < 0.8
    assert (real - alone).mean() > 0.8


def test_the_same_draws_give_the_same_background(always):
    features, lengths = speech(300)[None], torch.tensor([300])
    one, two = (always(features, lengths, torch.Generator().manual_seed(8)) for _ in range(2))
    other = always(features, lengths, torch.Generator().manual_seed(9))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    again = Background(always.config, FbankConfig())
    assert torch.equal(again._pieces, always._pieces)


def test_the_share_decides_how_many_get_one():
    background = Background(BackgroundConfig(share=0.3, pieces=2), FbankConfig())
    features = speech(20).expand(2000, 20, 80)
    mixed = background(features, torch.full((2000,), 20), torch.Generator().manual_seed(0))
    changed = (mixed != features).flatten(1).any(1).float().mean()
    assert changed == pytest.approx(0.3, abs=0.04)
    silent = Background(BackgroundConfig(), FbankConfig())
    assert silent(features, torch.full((2000,), 20), torch.Generator()) is features


@pytest.mark.parametrize("level", [-math.inf, -15.9])
def test_silence_stays_free_of_nan(always, level):
    mixed = always(torch.full((1, 50, 80), level), torch.tensor([50]), torch.Generator().manual_seed(0))
    assert not torch.isnan(mixed).any()


@pytest.mark.parametrize(
    "options", [{"snr_db": [20, 3]}, {"snr_db": [0, math.inf]}, {"share": 1.5}, {"snr": 3}]
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(ConfigError):
        BackgroundConfig.parse(options)
