"""Encoding streams chunk by chunk, many in one batch, exactly as the masked full forward would."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from raysr.errors import ConfigError
from raysr.model.encoder import Caches
from raysr.model.mask import Chunk
from raysr.model.model import AsrModel


class StreamingStep(Protocol):
    """Encodes one chunk of each of N streams: what :meth:`Encoder.step` does, of raw fbank.

    It takes fbank (N, (c + ahead - 1) x hop + window, mel_bins), how many of those frames belong to each stream
    (N,) and the caches; it returns (N, c, D), which of those are frames of their stream (N, c) bool, and the
    next caches.
    """

    def __call__(self, features: Tensor, frames: Tensor, caches: Caches) -> tuple[Tensor, Tensor, Caches]: ...


class EncoderStep(nn.Module):
    """The step of a model's own encoder."""

    def __init__(self, model: AsrModel, chunk: Chunk) -> None:
        super().__init__()
        self.model = model
        self.ahead = chunk.ahead

    def forward(self, features: Tensor, frames: Tensor, caches: Caches) -> tuple[Tensor, Tensor, Caches]:
        return self.model.encoder.step(self.model.normalise(features), frames, caches, self.ahead)


class Streamer:
    """Encodes streams in chunks of ``chunk_size`` encoder frames that see ``left_chunks`` chunks to the left.

    They also see ``lookahead`` frames after them, which are computed anew in the next chunk.

    Streams join, leave and begin again by slot, each at its own time; :meth:`step` computes the next chunk of
    all that have one in one batch, and what comes out of a stream does not depend on the others. Of T fbank
    frames pushed in any split, ``step`` and ``finish`` together return ``model.output_frames(T)`` encoder
    frames, equal to ``model.encode(features, lengths, chunk_size, left_chunks, lookahead)``.

    A chunk is computed as soon as its window of (chunk_size + lookahead - 1) x hop + window frames is there (67
    of them for 16 and none ahead at rate 4); the next window begins chunk_size x hop frames later. With
    chunk-flow its frames come out ``delay`` encoder frames later. The last chunk may be shorter; frames that
    fill no window of their own after it give no output.

    A slot holds fewer frames than one window beside what was pushed and not yet computed, and caches of fixed
    size; with ``left_chunks`` < 0 the keys and values grow with the longest stream, without bound.
    """

    def __init__(
        self,
        model: AsrModel,
        chunk_size: int,
        left_chunks: int,
        lookahead: int = 0,
        slots: int = 1,
        step: StreamingStep | None = None,
    ) -> None:
        """Raise :class:`ConfigError` where the model, which must be in eval mode, cannot stream.

        ``step`` takes the place of the model's own encoder.
        """
        if chunk_size < 0:
            raise ConfigError(f"chunk_size: a stream needs chunks of 1 frame or more (got {chunk_size})")
        self.chunk = model.check_chunk(chunk_size, left_chunks, lookahead)
        self.hop = chunk_size * model.encoder.hop
        self.window = (self.chunk.width - 1) * model.encoder.hop + model.encoder.window
        self.delay = model.encoder.delay(self.chunk)
        self._model = model
        self._step: StreamingStep = EncoderStep(model, self.chunk) if step is None else step
        self._nothing = model.cmvn_mean.new_zeros(0, model.config.mel_bins)
        self._features = [self._nothing] * slots
        self._steps = [0] * slots
        self._free = list(reversed(range(slots)))
        with torch.inference_mode():
            self._caches = model.encoder.initial_caches(slots, self.chunk)

    def join(self) -> int:
        """Return the slot of a new stream; raise RuntimeError when all are taken."""
        if not self._free:
            raise RuntimeError(f"all {len(self._steps)} slots are taken")
        return self._free.pop()

    def leave(self, slot: int) -> None:
        """End the stream of a slot, whatever is still in it, and let others have the slot."""
        self.reset(slot)
        self._free.append(slot)

    @torch.inference_mode()
    def reset(self, slot: int) -> None:
        """Forget the stream of a slot; another one begins in it."""
        self._check(slot)
        self._features[slot] = self._nothing
        self._steps[slot] = 0
        for cache in pytree.tree_leaves(self._caches):
            cache[slot].zero_()

    @torch.inference_mode()
    def push(self, slot: int, features: Tensor) -> None:
        """Add raw fbank (t, mel_bins) to what :meth:`step` finds of a stream."""
        self._check(slot)
        self._features[slot] = torch.cat((self._features[slot], features.to(self._nothing)))

    @torch.inference_mode()
    def step(self) -> dict[int, Tensor]:
        """Encode one chunk of every stream whose window is complete; return by slot the frames (t', D) that came out.

        Empty when no window is complete. A stream's tensor is empty while chunk-flow waits for its look-ahead.
        """
        ready = [slot for slot, features in enumerate(self._features) if len(features) >= self.window]
        if not ready:
            return {}
        windows = torch.stack([self._features[slot][: self.window] for slot in ready])
        for slot in ready:
            rest = self._features[slot][self.hop :]
            # A clone, so that what is left of a long push does not keep all of it in memory.
            self._features[slot] = rest.clone() if len(rest) < self.window else rest
        return self._encode(ready, windows, self.chunk.width)

    @torch.inference_mode()
    def finish(self, slot: int) -> Tensor:
        """Return the encoder frames (t', D) still to come of a stream; another one may begin in its slot."""
        self._check(slot)
        features = self._features[slot]
        outs = [self._model.cmvn_mean.new_zeros(0, self._model.config.encoder.dim)]
        while frames := min(self._model.output_frames(len(features)), self.chunk.width):
            window = F.pad(features[: self.window], (0, 0, 0, max(self.window - len(features), 0)))
            outs.append(self._encode([slot], window.unsqueeze(0), frames)[slot])
            features = features[self.hop :]
        if self._steps[slot] > 0:
            silence = self._nothing.new_zeros(1, self.window, self._nothing.shape[1])
            for _ in range(self.delay // self.chunk.size):
                outs.append(self._encode([slot], silence, 0)[slot])
        self.reset(slot)
        return torch.cat(outs)

    def _encode(self, slots: list[int], windows: Tensor, frames: int) -> dict[int, Tensor]:
        """Step the streams of ``slots`` over windows (N, window, mel_bins) of ``frames`` encoder frames each."""
        if self.chunk.left < 0:
            frames_left = (max(self._steps) + 1) * self.chunk.size  # room for this chunk too
            self._caches = self._model.encoder.with_left(self._caches, frames_left)
        rows = torch.tensor(slots, device=windows.device)
        everyone = len(slots) == len(self._steps)
        caches = self._caches
        if not everyone:
            caches = pytree.tree_map(lambda cache: cache.index_select(0, rows), caches)
        out, valid, caches = self._step(windows, torch.full_like(rows, frames), caches)
        if not everyone:
            caches = pytree.tree_map(lambda cache, new: cache.index_copy_(0, rows, new), self._caches, caches)
        self._caches = caches
        for slot in slots:
            self._steps[slot] += 1
        counts = valid.sum(dim=1).tolist()
        return {slot: row[:count] for slot, row, count in zip(slots, out, counts, strict=True)}

    def _check(self, slot: int) -> None:
        if slot in self._free or not 0 <= slot < len(self._steps):
            raise ValueError(f"no stream has joined in slot {slot}")
