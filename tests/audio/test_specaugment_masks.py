"""SpecAugment hides bands and spans within the utterance, no wider than told, and repeats with its generator."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from raysr.audio.specaugment import SpecAugmentConfig, spec_augment


def features(lengths: list[int], bins: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(len(lengths), max(lengths), bins, generator=generator) + 10


def augment(batch: Tensor, lengths: list[int], config: SpecAugmentConfig, seed: int) -> Tensor:
    return spec_augment(batch, torch.tensor(lengths), config, torch.Generator().manual_seed(seed))


configs = st.builds(
    SpecAugmentConfig,
    freq_masks=st.integers(0, 3),
    freq_width=st.integers(0, 30),
    time_masks=st.integers(0, 3),
    time_width=st.integers(0, 60),
    time_share=st.floats(0, 1),
)


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4), config=configs, seed=st.integers(0, 99))
def test_masks_stay_inside_and_within_their_widths(
    lengths: list[int], config: SpecAugmentConfig, seed: int
) -> None:
    batch = features(lengths)
    changed = augment(batch, lengths, config, seed) != batch  # (B, T, F)
    for row, length in zip(changed, lengths, strict=True):
        assert not row[length:].any()
        whole_frames, whole_bins = row[:length].all(dim=1), row[:length].all(dim=0)
        if not (whole_frames.all() or whole_bins.all()):
            assert torch.equal(row[:length], whole_frames[:, None] | whole_bins[None, :])
        longest = min(config.time_width, int(length * config.time_share))
        if not whole_bins.all():
            assert whole_frames.sum() <= config.time_masks * longest
        if not whole_frames.all():
            assert whole_bins.sum() <= config.freq_masks * min(config.freq_width, 20)


def test_hidden_values_are_the_mean_of_their_bin() -> None:
    lengths = [50, 30]
    batch = features(lengths)
    result = augment(batch, lengths, SpecAugmentConfig(freq_width=8, time_width=10), seed=3)
    for before, after, length in zip(batch, result, lengths, strict=True):
        expected = before[:length].mean(dim=0).expand(length, -1)
        hidden = before[:length] != after[:length]
        assert hidden.any()
        torch.testing.assert_close(after[:length][hidden], expected[hidden])


def test_every_width_up_to_the_largest_is_drawn_about_equally_often() -> None:
    config = SpecAugmentConfig(freq_masks=0, time_masks=1, time_width=4, time_share=1.0)
    lengths = [30] * 5000
    batch = features([30], bins=1).expand(5000, -1, -1)
    widths = (augment(batch, lengths, config, seed=0) != batch).sum(dim=(1, 2))
    shares = torch.bincount(widths, minlength=5) / 5000
    assert len(shares) == 5
    assert (shares - 0.2).abs().max() < 0.03


def test_the_generator_alone_decides() -> None:
    lengths, config = [40, 25], SpecAugmentConfig()
    batch = features(lengths)
    untouched = batch.clone()
    assert torch.equal(augment(batch, lengths, config, 7), augment(batch, lengths, config, 7))
    assert not torch.equal(augment(batch, lengths, config, 7), augment(batch, lengths, config, 8))
    assert torch.equal(batch, untouched)


def test_padding_does_not_move_the_fill() -> None:
    lengths, config = [40, 25], SpecAugmentConfig()
    batch = features(lengths)
    loud = batch.clone()
    loud[1, 25:] = 1e6
    assert torch.equal(augment(batch, lengths, config, 7)[1, :25], augment(loud, lengths, config, 7)[1, :25])
