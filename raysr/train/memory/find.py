"""The largest batch that fits into memory, found before the training and not by its crash.

A few small batches of the corpus's own extremes are measured in a process of their own, what they take is carried on
to larger ones, and the worst that a sampler could deal under the budget found are tried out (:mod:`.search`).
"""

import socket
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist

from raysr.errors import RunError
from raysr.train.memory.gauge import Room
from raysr.train.memory.search import Found, NoRoom, search
from raysr.train.memory.shapes import Lengths, WorstShapes
from raysr.train.memory.trial import MakeStep, Trials

HEADROOM = 0.1
Given = TypeVar("Given")


def find_largest_batch(
    make: MakeStep,
    lengths: Lengths,
    names: Sequence[str],
    device: torch.device,
    headroom: float = HEADROOM,
    limit: int | None = None,
) -> Found:
    """Return the largest budget of a global batch that fits into the memory of every rank.

    All ranks call this, before they have students of their own. What other processes hold is not free, and ranks that
    share a device, or the memory of a host, get equal parts of what is.

    Args:
        make: makes the student in another process, with all that it keeps between steps.
        lengths: of the corpus.
        names: ids of the utterances, through all sources in their order.
        device: of this rank; a CUDA device with its index.
        headroom: the part of what is free that is left alone, for fragments that batches of other shapes leave, the
            buffers of connections, and the batches made in advance.
        limit: bytes that a rank's process may take; None: what is free says it.

    Raises:
        RunError: on some rank an utterance alone does not fit; names both, and how much it takes.
    """
    shapes = WorstShapes(lengths, dist.get_world_size() if dist.is_initialized() else 1)
    with Trials(make, device) as trials:
        shared = _share(trials.room(), device, headroom)
        most = shared if limit is None else limit
        try:
            outcome: Found | str = search(trials.peaks, shapes, most)
        except NoRoom as error:
            outcome = _said(error, lengths, names, most)
    outcomes = _gathered(outcome)
    for each in outcomes:
        if isinstance(each, str):
            raise RunError(each)
    found = [each for each in outcomes if isinstance(each, Found)]
    return min(found, key=lambda each: each.batch_frames)


def _share(room: Room, device: torch.device, headroom: float) -> int:
    """Return the bytes that this rank's process may take; all ranks have seen what is free when one goes on."""
    place = socket.gethostname()
    if device.type == "cuda":
        place += f" {torch.cuda.get_device_properties(device).uuid}"
    return room.used + int(room.free * (1 - headroom) / _gathered(place).count(place))


def _said(error: NoRoom, lengths: Lengths, names: Sequence[str], limit: int) -> str:
    frames = np.concatenate([np.asarray(source) for source in lengths.frames])
    name = names[int(np.flatnonzero(frames == error.frames)[0])]
    return (
        f"a training step of utterance {name} alone ({error.frames * lengths.frame_shift_ms / 1000:.1f} s) takes "
        f"{_gib(error.needed)} of memory or more, and each rank on host {socket.gethostname()} may take {_gib(limit)}: "
        "leave it out or cut it, give a host fewer ranks, or train a smaller model"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _gathered(of_this_rank: Given) -> list[Given]:
    """Return what all ranks give, in their order."""
    gathered = [of_this_rank]
    if dist.is_initialized():
        gathered *= dist.get_world_size()
        dist.all_gather_object(gathered, of_this_rank)
    return gathered
