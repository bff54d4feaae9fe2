"""A passage: a stretch of audio that one model recognises from beginning to end, with all the state that takes."""

from collections.abc import Generator, Mapping

import numpy as np
import torch

from raysr.audio.fbank import OnlineFbank
from raysr.decode.events import Event
from raysr.decode.segments import SegmentDecoder
from raysr.stream.streaming_model import StreamingModel
from raysr.stream.together import Encoded, Waiting

Reading = Generator[Waiting, Encoded, list[Event]]
"""A task that reads what a passage heard."""


class Passage:
    """16 kHz samples in, segment events out; times count from the passage's own beginning."""

    def __init__(self, model: StreamingModel, phrases: Mapping[str, float]) -> None:
        """Raise :class:`raysr.errors.ConfigError` for phrases that cannot be boosted."""
        recogniser = model.recogniser
        config = recogniser.config
        self._fbank = OnlineFbank(config.fbank)
        self._decoder = SegmentDecoder(
            recogniser.model, config.decode, recogniser.lm, recogniser.tokeniser, phrases
        )
        self._streamer = model.streamer
        self._slot = self._streamer.join()
        self._config = config.fbank
        self._samples = 0  # pushed
        self._unread = 0  # features that are in the slot from the next window's first one on
        self._frame_samples = recogniser.model.encoder.hop * config.fbank.shift_samples
        self._frames = 0

    @property
    def decoded(self) -> int:
        """How many samples the decoder has heard; those after them still wait for their chunk to fill."""
        return self._frames * self._frame_samples

    @property
    def missing(self) -> int:
        """How many more samples the next chunk takes."""
        further = self._streamer.window - self._unread
        frames = self._config.frames(self._samples) + further
        return self._config.window_samples + (frames - 1) * self._config.shift_samples - self._samples

    def push(self, samples: np.ndarray) -> Reading:
        """Recognise as much of the samples (N,) as fills whole chunks."""
        self._samples += len(samples)
        features = self._fbank.push(torch.from_numpy(samples))  # (t, mel_bins)
        self._streamer.push(self._slot, features)
        self._unread += len(features)
        return (yield from self._decode())

    def finalize(self) -> Reading:
        """Recognise what was pushed to its end because the client asks for it; the passage ends."""
        return (yield from self._flush()) + self._decoder.finalize()

    def finish(self) -> Reading:
        """Recognise what was pushed to its end; the passage ends."""
        return (yield from self._flush()) + self._decoder.finish()

    def leave(self) -> None:
        """Let another passage have the place in the model's batch; nothing else may follow."""
        self._streamer.leave(self._slot)

    def _flush(self) -> Reading:
        self._streamer.end(self._slot)
        return (yield from self._decode())

    def _decode(self) -> Reading:
        """Have all steps taken that are due, and read what they bring."""
        found: list[Encoded] = []
        while self._streamer.due(self._slot):
            found.append((yield Waiting(self._streamer, self._slot)))
            self._unread -= self._streamer.hop
        if not found:
            return []
        out, log_probs = found[0] if len(found) == 1 else map(torch.cat, zip(*found, strict=True))
        self._frames += len(out)
        return self._decoder.push(out, log_probs)
