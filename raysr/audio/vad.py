"""Where there is speech: Silero's voice activity detector, a block at a time, so that hours of audio take no memory.

The network is run here in torch with the weights that the package ``silero-vad`` ships (MIT, 16 kHz): a short-time
spectrum and four convolutions over all frames of a block at once, then an LSTM that carries its state to the next.
That takes a thousandth of the audio's time. The package's own model goes frame by frame and is a TorchScript file,
which torch no longer recommends; nor is the package imported, since that sets torch's threads.
"""

from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from raysr.errors import ConfigError

FRAME = 512
"""Samples at 16 kHz that a probability stands for: 32 ms."""
_CONTEXT = 64
_FFT, _HOP, _BINS = 256, 128, 129
_STRIDES = (1, 2, 2, 1)
_STATE = 128


class SpeechDetector:
    """The detector on one stream of audio."""

    def __init__(self) -> None:
        self._weights = _weights()
        self._lstm = _lstm()
        self._state = (torch.zeros(1, 1, _STATE), torch.zeros(1, 1, _STATE))
        self._context = torch.zeros(_CONTEXT)
        self._pending = torch.zeros(0)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take samples (N,) float32 at 16 kHz; return the probability of speech in each frame they complete, (T,)."""
        pending = torch.cat([self._pending, torch.from_numpy(samples.astype(np.float32))])
        count = len(pending) // FRAME
        self._pending = pending[count * FRAME :].clone()
        return self._probabilities(pending[: count * FRAME]) if count else np.zeros(0, np.float32)

    def finish(self) -> np.ndarray:
        """Return the probability of what remains, as if silence followed: (1,), or (0,) when nothing remains."""
        return self.push(np.zeros(-len(self._pending) % FRAME, np.float32))

    @torch.inference_mode()
    def _probabilities(self, samples: Tensor) -> np.ndarray:
        """Compute whole frames (T · FRAME,)."""
        joined = torch.cat([self._context, samples])
        self._context = samples[-_CONTEXT:].clone()
        frames = joined.unfold(0, _CONTEXT + FRAME, FRAME)[:, None]  # (T, 1, context + frame)
        w = self._weights
        x = functional.conv1d(
            functional.pad(frames, (0, _CONTEXT), "reflect"), w["stft_conv.weight"], stride=_HOP
        )
        x = (x[:, :_BINS].square() + x[:, _BINS:].square()).sqrt()  # (T, bins, 4)
        for number, stride in enumerate(_STRIDES, start=1):
            weight, bias = w[f"conv{number}.weight"], w[f"conv{number}.bias"]
            x = functional.conv1d(x, weight, bias, stride=stride, padding=1).relu()
        x, self._state = self._lstm(x.squeeze(-1)[:, None], self._state)  # (T, 1, state)
        logits = functional.conv1d(x.relu().transpose(1, 2), w["final_conv.weight"], w["final_conv.bias"])
        found: np.ndarray = logits.sigmoid().reshape(-1).numpy()
        return found


def speech_probabilities(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Return the probability of speech in every frame of a recording that comes in blocks, (T,) float32."""
    detector = SpeechDetector()
    return np.concatenate([*(detector.push(block) for block in blocks), detector.finish()])


@lru_cache(maxsize=1)
def _weights() -> dict[str, Tensor]:
    package = find_spec("silero_vad")
    if package is None or package.origin is None:
        raise ConfigError("cutting long recordings needs the package silero-vad: pip install silero-vad")
    return load_file(Path(package.origin).parent / "data" / "silero_vad_16k.safetensors")


@lru_cache(maxsize=1)
def _lstm() -> torch.nn.LSTM:
    lstm = torch.nn.LSTM(_STATE, _STATE)
    lstm.load_state_dict(
        {
            f"{name}_l0": _weights()[f"lstm_cell.{name}"]
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
    )
    return lstm.eval()
