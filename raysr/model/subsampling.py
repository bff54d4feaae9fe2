"""Convolutional subsampling: a stack of 3x3-like strided convolutions over time and frequency."""

import torch.nn.functional as F
from torch import Tensor, nn

# rate -> (kernel, stride) over time of each layer; frequency is halved by every layer.
LAYERS: dict[int, tuple[tuple[int, int], ...]] = {
    2: ((3, 2), (3, 1)),
    4: ((3, 2), (3, 2)),
    6: ((3, 2), (5, 3)),
    8: ((3, 2), (3, 2), (3, 2)),
}


class Subsampling(nn.Module):
    """Fbank (B, T, mel_bins) -> (B, T', dim), without padding in time.

    One output frame is computed from ``window`` input frames, the next one ``hop`` frames later, so that
    T' = 0 when T < window, else (T - window) // hop + 1. At rate 4: window 7, hop 4. Output frame t depends
    on input frames [hop x t, hop x t + window) only; n output frames need (n - 1) x hop + window of them.
    """

    def __init__(self, mel_bins: int, dim: int, rate: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.hop = 1
        self.window = 1
        bins, in_channels, convolutions = mel_bins, 1, []
        for kernel, stride in LAYERS[rate]:
            convolutions.append(nn.Conv2d(in_channels, channels, (kernel, 3), (stride, 2)))
            self.window += (kernel - 1) * self.hop
            self.hop *= stride
            bins = (bins - 3) // 2 + 1
            in_channels = channels
        self.convolutions = nn.ModuleList(convolutions)
        self.linear = nn.Linear(channels * bins, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Subsample; fewer than ``window`` frames are filled up with zeros, so that T' is at least 1."""
        missing = max(self.window - features.shape[1], 0)
        # Channels last is a quarter faster on CPUs, and makes the flattening below free.
        x = F.pad(features, (0, 0, 0, missing)).unsqueeze(-1).permute(0, 3, 1, 2)  # (B, 1, T, F)
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
        x = x.permute(0, 2, 3, 1).flatten(2)  # (B, T', F' x channels)
        return self.dropout(self.linear(x))
