"""Encoding streams chunk by chunk, many in one batch, exactly as the masked full forward would."""

import itertools
import threading
from collections.abc import Collection
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
    size; with ``left_chunks`` < 0 the keys and values grow with the longest stream, without bound. There are caches
    for about as many streams as have joined, ``slots`` at most.
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
        self._slots = slots
        self._taken: set[int] = set()
        self._lock = threading.Lock()
        self._features: dict[int, Tensor] = {}
        self._steps: dict[int, int] = {}
        self._room = 1  # for so many streams there are caches
        self._left_frames = 0  # that caches have room for, where that grows
        with torch.inference_mode():
            self._caches = model.encoder.initial_caches(self._room, self.chunk)

    def join(self) -> int:
        """Return the slot of a new stream; raise RuntimeError when all are taken. May be called from any thread."""
        with self._lock:
            slot = next(slot for slot in itertools.count() if slot not in self._taken)
            if slot >= self._slots:
                raise RuntimeError(f"all {self._slots} slots are taken")
            self._taken.add(slot)
        return slot

    def leave(self, slot: int) -> None:
        """End the stream of a slot, whatever is still in it, and let others have the slot."""
        self.reset(slot)
        with self._lock:
            self._taken.remove(slot)
            needed = max(self._taken, default=0) + 1
        if 4 * needed <= self._room:
            self._make_room(2 * needed)

    @torch.inference_mode()
    def reset(self, slot: int) -> None:
        """Forget the stream of a slot; another one begins in it."""
        self._check(slot)
        self._features.pop(slot, None)
        self._steps.pop(slot, None)
        if slot < self._room:
            for cache in pytree.tree_leaves(self._caches):
                cache[slot].zero_()

    @torch.inference_mode()
    def push(self, slot: int, features: Tensor) -> None:
        """Add raw fbank (t, mel_bins) to what :meth:`step` finds of a stream."""
        self._check(slot)
        self._features[slot] = torch.cat((self._unread(slot), features.to(self._nothing)))

    @torch.inference_mode()
    def step(self, slots: Collection[int] | None = None) -> dict[int, Tensor]:
        """Encode one chunk of every stream whose window is complete; return by slot the frames (t', D) that came out.

        Empty when no window is complete. A stream's tensor is empty while chunk-flow waits for its look-ahead. Where
        the encoder raises, every stream is as it was.

        Args:
            slots: those whose streams may be stepped; all unless given.
        """
        able = self._features if slots is None else set(slots)
        ready = sorted(slot for slot in able if len(self._unread(slot)) >= self.window)
        if not ready:
            return {}
        windows = torch.stack([self._features[slot][: self.window] for slot in ready])
        out = self._encode(ready, windows, self.chunk.width)
        for slot in ready:
            rest = self._features[slot][self.hop :]
            # A clone, so that what is left of a long push does not keep all of it in memory.
            self._features[slot] = rest.clone() if len(rest) < self.window else rest
        return out

    @torch.inference_mode()
    def finish(self, slot: int) -> Tensor:
        """Return the encoder frames (t', D) still to come of a stream; another one may begin in its slot."""
        self._check(slot)
        features = self._unread(slot)
        outs = [self._model.cmvn_mean.new_zeros(0, self._model.config.encoder.dim)]
        while frames := min(self._model.output_frames(len(features)), self.chunk.width):
            window = F.pad(features[: self.window], (0, 0, 0, max(self.window - len(features), 0)))
            outs.append(self._encode([slot], window.unsqueeze(0), frames)[slot])
            features = features[self.hop :]
        if self._steps.get(slot, 0) > 0:
            silence = self._nothing.new_zeros(1, self.window, self._nothing.shape[1])
            for _ in range(self.delay // self.chunk.size):
                outs.append(self._encode([slot], silence, 0)[slot])
        self.reset(slot)
        return torch.cat(outs)

    def _encode(self, slots: list[int], windows: Tensor, frames: int) -> dict[int, Tensor]:
        """Step the streams of ``slots`` over windows (N, window, mel_bins) of ``frames`` encoder frames each."""
        if self._room <= max(slots):
            self._make_room(min(1 << max(slots).bit_length(), self._slots))
        if self.chunk.left < 0:
            steps = max(self._steps.values(), default=0)
            self._left_frames = (steps + 1) * self.chunk.size  # room for this chunk too
            self._caches = self._model.encoder.with_left(self._caches, self._left_frames)
        rows = torch.tensor(slots, device=windows.device)
        everyone = len(slots) == self._room
        caches = self._caches
        if not everyone:
            caches = pytree.tree_map(lambda cache: cache.index_select(0, rows), caches)
        out, valid, caches = self._step(windows, torch.full_like(rows, frames), caches)
        if not everyone:
            caches = pytree.tree_map(lambda cache, new: cache.index_copy_(0, rows, new), self._caches, caches)
        self._caches = caches
        for slot in slots:
            self._steps[slot] = self._steps.get(slot, 0) + 1
        counts = valid.sum(dim=1).tolist()
        return {slot: row[:count] for slot, row, count in zip(slots, out, counts, strict=True)}

    @torch.inference_mode()
    def _make_room(self, slots: int) -> None:
        """Have caches for so many streams; those beyond them have left."""
        if slots > self._room:
            added = self._model.encoder.initial_caches(slots - self._room, self.chunk)
            if self.chunk.left < 0:
                added = self._model.encoder.with_left(added, self._left_frames)
            self._caches = pytree.tree_map(lambda *both: torch.cat(both), self._caches, added)
        else:
            self._caches = pytree.tree_map(lambda cache: cache[:slots].clone(), self._caches)
        self._room = slots

    def _unread(self, slot: int) -> Tensor:
        return self._features.get(slot, self._nothing)

    def _check(self, slot: int) -> None:
        if slot not in self._taken:
            raise ValueError(f"no stream has joined in slot {slot}")
