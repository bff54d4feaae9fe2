"""Encoding a stream chunk by chunk, exactly as the masked full forward would."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from raysr.errors import ConfigError
from raysr.model.model import AsrModel


class StreamState(NamedTuple):
    """A stream between two steps; never changed in place, so an earlier one can be gone on from again."""

    features: Tensor
    """Raw fbank (t, mel_bins) from the first frame of the next chunk on."""
    caches: tuple[Any, ...]
    seen: int
    """Encoder frames in the attention caches."""


class Streamer:
    """Encodes streams in chunks of ``chunk_size`` encoder frames that see ``left_chunks`` chunks to the left.

    Of T fbank frames pushed in any split, ``step`` and ``finish`` together return ``model.output_frames(T)``
    encoder frames, equal to ``model.encode(features, lengths, chunk_size, left_chunks)``. A chunk is
    computed as soon as its window of (chunk_size - 1) x hop + window frames is there (67 of them for 16 at
    rate 4); the next window begins chunk_size x hop frames later. The last chunk may be shorter; frames that
    fill no window of their own after it give no output.

    A state holds fewer frames than one window and ``left_chunks`` chunks of keys and values; with
    ``left_chunks`` < 0 it grows with the stream. The model must be in eval mode.
    """

    def __init__(self, model: AsrModel, chunk_size: int, left_chunks: int) -> None:
        """Raise :class:`ConfigError` where the model cannot stream."""
        if chunk_size < 0:
            raise ConfigError(f"chunk_size: a stream needs chunks of 1 frame or more (got {chunk_size})")
        chunk = model.check_chunk(chunk_size, left_chunks)
        subsampling = model.encoder.subsampling
        self.model = model
        self.hop = chunk.size * subsampling.hop
        self.window = (chunk.size - 1) * subsampling.hop + subsampling.window
        self.keep = chunk.size * chunk.left if chunk.left >= 0 else -1

    def initial_state(self) -> StreamState:
        """Return the state of a stream that has not begun."""
        features = self.model.cmvn_mean.new_zeros(0, self.model.config.mel_bins)
        return StreamState(features, self.model.encoder.initial_caches(batch=1), seen=0)

    @torch.no_grad()
    def step(self, state: StreamState, features: Tensor) -> tuple[Tensor, StreamState]:
        """Push raw fbank (t, mel_bins); return the frames that became ready (t', D), and the next state."""
        buffer = torch.cat((state.features, features.to(state.features)))
        outs, start = [self._nothing()], 0
        while start + self.window <= len(buffer):
            out, state = self._encode(state, buffer[start : start + self.window])
            outs.append(out)
            start += self.hop
        # A clone, so that what is left of a long push does not keep all of it in memory.
        return torch.cat(outs), state._replace(features=buffer[start:].clone())

    @torch.no_grad()
    def finish(self, state: StreamState) -> Tensor:
        """Return the encoder frames (t', D) of the last, shorter chunk; the state stays usable."""
        if self.model.output_frames(len(state.features)) == 0:
            return self._nothing()
        return self._encode(state, state.features)[0]

    def _encode(self, state: StreamState, window: Tensor) -> tuple[Tensor, StreamState]:
        features = self.model.normalise(window).unsqueeze(0)  # (1, t, F)
        out, caches = self.model.encoder.step(features, state.caches, state.seen, self.keep)
        seen = state.seen + out.shape[1]
        return out[0], StreamState(state.features, caches, seen if self.keep < 0 else min(seen, self.keep))

    def _nothing(self) -> Tensor:
        return self.model.cmvn_mean.new_zeros(0, self.model.config.encoder.dim)
