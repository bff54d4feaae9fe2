"""An utterance to hear and to see, as text that a page carries inside: Opus audio and a spectrogram."""

import base64
import io
from dataclasses import dataclass

import numpy as np
import torch

from raysr.audio.encode import encode_opus
from raysr.audio.fbank import Fbank, FbankConfig

LONGEST_S = 30.0
"""Of an utterance, what a page plays at most."""
BITRATE = 24_000
WIDEST = 600
RANGE = 8.0
"""Of the spectrogram, in natural logarithms below its loudest point: about 35 dB."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Data URIs of an utterance's audio and of its spectrogram, and its seconds."""

    audio: str
    spectrogram: str
    seconds: float


def listening(samples: np.ndarray) -> Listening:
    """Return what a page needs to play and show 16 kHz samples (N,)."""
    played = samples[: round(LONGEST_S * 16000)]
    audio = base64.b64encode(encode_opus(played, BITRATE)).decode()
    image = base64.b64encode(spectrogram_png(played)).decode()
    return Listening(f"data:audio/ogg;base64,{audio}", f"data:image/png;base64,{image}", len(samples) / 16000)


def spectrogram_png(samples: np.ndarray) -> bytes:
    """Return a log-mel spectrogram as a PNG, time to the right, low frequencies below."""
    from matplotlib.image import imsave

    features = Fbank(FbankConfig())(torch.from_numpy(np.asarray(samples, np.float32))).numpy()  # (T, M)
    step = max(1, -(-len(features) // WIDEST))
    columns = [features[first : first + step].max(0) for first in range(0, len(features), step)]
    picture = np.stack(columns, axis=1)[::-1] if columns else np.zeros((1, 1), np.float32)  # (M, T')
    output = io.BytesIO()
    imsave(output, picture, vmin=picture.max() - RANGE, vmax=picture.max(), cmap="magma", format="png")
    return output.getvalue()
