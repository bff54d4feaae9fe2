"""A passage: a stretch of audio that one model recognises from beginning to end, with all the state that takes."""

from collections.abc import Mapping

import numpy as np
import torch

from raysr.audio.fbank import OnlineFbank
from raysr.decode.events import Event
from raysr.decode.segments import SegmentDecoder
from raysr.model.chunking import Chunking
from raysr.model.streaming import Streamer
from raysr.pool import Recogniser


class Passage:
    """16 kHz samples in, segment events out; times count from the passage's own beginning."""

    def __init__(self, recogniser: Recogniser, chunking: Chunking, phrases: Mapping[str, float]) -> None:
        """Raise :class:`raysr.errors.ConfigError` for phrases that cannot be boosted."""
        model, config = recogniser.model, recogniser.config
        self._fbank = OnlineFbank(config.fbank)
        self._streamer = Streamer(model, *chunking, step=recogniser.step)
        self._slot = self._streamer.join()
        self._decoder = SegmentDecoder(model, config.decode, recogniser.lm, recogniser.tokeniser, phrases)
        self._frame_samples = model.encoder.hop * config.fbank.shift_samples
        self._frames = 0

    @property
    def decoded(self) -> int:
        """How many samples the decoder has heard; those after them still wait for their chunk to fill."""
        return self._frames * self._frame_samples

    @torch.inference_mode()
    def push(self, samples: np.ndarray) -> list[Event]:
        """Recognise as much of the samples (N,) as fills whole chunks."""
        features = self._fbank.push(torch.from_numpy(samples))  # (t, mel_bins)
        self._streamer.push(self._slot, features)
        outs = []
        while ready := self._streamer.step():
            outs.append(ready[self._slot])  # (t', D)
        return self._decode(torch.cat(outs)) if outs else []

    @torch.inference_mode()
    def finalize(self) -> list[Event]:
        """Recognise what was pushed to its end because the client asks for it; the passage ends."""
        return self._flush() + self._decoder.finalize()

    @torch.inference_mode()
    def finish(self) -> list[Event]:
        """Recognise what was pushed to its end; the passage ends."""
        return self._flush() + self._decoder.finish()

    def _flush(self) -> list[Event]:
        return self._decode(self._streamer.finish(self._slot))

    def _decode(self, out: torch.Tensor) -> list[Event]:
        """Read encoder frames (t', D)."""
        self._frames += len(out)
        return self._decoder.push(out)
