"""Encoding streams chunk by chunk, many in one batch, exactly as the masked full forward would."""

import itertools
import threading
from collections.abc import Collection, Sequence
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
    frames pushed in any split, ``step`` and ``finish`` (or ``step`` after ``end``) together return
    ``model.output_frames(T)`` encoder frames, equal to
    ``model.encode(features, lengths, chunk_size, left_chunks, lookahead)``.

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
        self._owed: dict[int, int] = {}  # steps without features that ended streams still take
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
        self._owed.pop(slot, None)
        if slot < self._room:
            for cache in pytree.tree_leaves(self._caches):
                cache[slot].zero_()

    @torch.inference_mode()
    def push(self, slot: int, features: Tensor) -> None:
        """Add raw fbank (t, mel_bins) to what :meth:`step` finds of a stream."""
        self._check(slot)
        self._features[slot] = torch.cat((self._unread(slot), features.to(self._nothing)))

    def end(self, slot: int) -> None:
        """Tell that a stream has no more features: :meth:`step` computes what is left, down to the last frame.

        Nothing may be pushed after that, until the slot is reset or left.
        """
        self._check(slot)
        if slot in self._owed:
            return
        begun = slot in self._steps or self._model.output_frames(len(self._unread(slot))) > 0
        self._owed[slot] = self.delay // self.chunk.size if begun else 0

    def due(self, slot: int) -> bool:
        """Return whether :meth:`step` would compute anything for a stream."""
        self._check(slot)
        return self._frames_due(slot) > 0 or self._owed.get(slot, 0) > 0

    @torch.inference_mode()
    def step(self, slots: Collection[int] | None = None) -> dict[int, Tensor]:
        """Encode one chunk of every stream that is due; return by slot the frames (t', D) that came out.

        A stream is due when its window is complete or its end was told. Empty when none is. A stream's tensor is empty
        while chunk-flow waits for its look-ahead. Where the encoder raises, every stream is as it was.

        Args:
            slots: those whose streams may be stepped; all unless given.
        """
        able = self._features.keys() | self._owed.keys() if slots is None else set(slots)
        ready = sorted(slot for slot in able if self.due(slot))
        if not ready:
            return {}
        frames = [self._frames_due(slot) for slot in ready]
        rests = [self._rest(slot) for slot in ready]
        out = self._encode(ready, torch.stack([self._window(slot) for slot in ready]), frames)
        for slot, count, rest in zip(ready, frames, rests, strict=True):
            self._features[slot] = rest
            self._owed.update({} if count else {slot: self._owed[slot] - 1})
        return out

    def finish(self, slot: int) -> Tensor:
        """Return the encoder frames (t', D) still to come of a stream; another one may begin in its slot."""
        self.end(slot)
        outs = [self._model.cmvn_mean.new_zeros(0, self._model.config.encoder.dim)]
        while self.due(slot):
            outs.append(self.step([slot])[slot])
        self.reset(slot)
        return torch.cat(outs)

    @torch.inference_mode()
    def log_probs(self, outs: Sequence[Tensor]) -> list[Tensor]:
        """Return CTC's natural-log posteriors (t', V) of frames (t', D) of several streams, on the CPU.

        One product and one transfer serve them all.
        """
        found = self._model.ctc_log_probs(torch.cat(list(outs)).unsqueeze(0))[0].cpu()
        return list(found.split([len(out) for out in outs]))

    def _frames_due(self, slot: int) -> int:
        """Return how many encoder frames the next step computes of a stream's features."""
        unread = len(self._unread(slot))
        if unread >= self.window:
            return self.chunk.width
        return min(self._model.output_frames(unread), self.chunk.width) if slot in self._owed else 0

    def _rest(self, slot: int) -> Tensor:
        """Return the features that are unread after a stream's next step."""
        rest = self._unread(slot)[self.hop :]
        # A clone, so that what is left of a long push does not keep all of it in memory.
        return rest.clone() if len(rest) < self.window else rest

    def _window(self, slot: int) -> Tensor:
        """Return the features (window, mel_bins) of a stream's next step; after its end there is silence."""
        window = self._unread(slot)[: self.window]
        return window if len(window) == self.window else F.pad(window, (0, 0, 0, self.window - len(window)))

    def _encode(self, slots: list[int], windows: Tensor, frames: list[int]) -> dict[int, Tensor]:
        """Step the streams of ``slots`` over windows (N, window, mel_bins), with so many encoder frames each (N,)."""
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
        out, valid, caches = self._step(windows, torch.tensor(frames, device=windows.device), caches)
        counts = valid.sum(dim=1).tolist()  # a device tells its errors here at the latest
        if not everyone:
            caches = pytree.tree_map(lambda cache, new: cache.index_copy_(0, rows, new), self._caches, caches)
        self._caches = caches
        for slot in slots:
            self._steps[slot] = self._steps.get(slot, 0) + 1
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
