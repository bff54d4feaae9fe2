"""Training checkpoints: everything an exact resume needs, in a folder to which every rank writes its part.

Rank 0 writes what all ranks have in common, the weights first of all; every rank writes what is its own, such as the
errors that a compressed exchange has left with it. Each also writes the digests of its files, so that what a disk or a
store has damaged is told before it is trained on.
"""

import copy
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raysr.corpus.disk import replacing
from raysr.errors import RunError

MODEL, AVERAGE, SHARED, PROGRESS = "model.safetensors", "ema.safetensors", "shared.pt", "progress.json"


@dataclass(frozen=True)
class Progress:
    """How far a training is. Random draws are functions of (seed, step, rank), so they need no state here.

    Attributes:
        step: that were asked for.
        sampler: where it stands.
        skipped_steps: that were not taken.
        ranks: that trained.
        data: fingerprint of what is dealt.
        batch_frames, piece_frames: of a global batch, and of what goes through a model at once.
        comm: the exchange, as chosen where that was ``auto``.
    """

    step: int
    sampler: dict[str, Any]
    skipped_steps: int
    ranks: int
    data: str
    batch_frames: int
    piece_frames: int | None
    comm: dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """A copy of a training's state on one rank, on the CPU: it can be written while the training goes on.

    Attributes:
        step: after which it was taken.
        rank: of this part.
        ranks: in how many parts the checkpoint comes.
        own: what is this rank's alone.
        progress: rank 0's.
        model: weights by name; rank 0's.
        average: their moving average, if there is one; rank 0's.
        shared: other states that all ranks have in common; rank 0's.
    """

    step: int
    rank: int
    ranks: int
    own: Mapping[str, Any]
    progress: Progress | None = None
    model: Mapping[str, Tensor] = field(default_factory=dict)
    average: Mapping[str, Tensor] = field(default_factory=dict)
    shared: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write this rank's files into an existing folder; when the last of them is there, all are."""
        written = [own_file(self.rank)]
        torch.save(dict(self.own), folder / written[0])
        if self.progress is not None:
            written += [MODEL, SHARED, PROGRESS]
            save_weights(folder / MODEL, self.model)
            if self.average:
                written.append(AVERAGE)
                save_weights(folder / AVERAGE, self.average)
            torch.save(dict(self.shared), folder / SHARED)
            (folder / PROGRESS).write_text(json.dumps(asdict(self.progress)))
        digests = {name: _digest(folder / name, durable=True) for name in written}
        with replacing(folder / digests_file(self.rank)) as file:
            file.write(json.dumps(digests).encode())


@dataclass(frozen=True)
class Checkpoint:
    """One that was read.

    Attributes:
        own: this rank's part; empty where there were other ranks.
        others: all ranks' parts where there were others, by rank.
    """

    progress: Progress
    model: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    shared: Mapping[str, Any]
    own: Mapping[str, Any]
    others: list[Mapping[str, Any]]


def read(folder: Path, rank: int, ranks: int) -> Checkpoint:
    """Read what rank ``rank`` of ``ranks`` needs of a checkpoint.

    Raises:
        RunError: it is incomplete or damaged; names the file.
    """
    try:
        _check(folder, 0)
        progress = Progress(**json.loads((folder / PROGRESS).read_text()))
        same = progress.ranks == ranks
        parts = [rank] if same else list(range(progress.ranks))
        for part in parts:
            _check(folder, part)
        own: list[Mapping[str, Any]] = [_load(folder / own_file(part)) for part in parts]
        return Checkpoint(
            progress,
            load_file(folder / MODEL),
            load_file(folder / AVERAGE) if (folder / AVERAGE).exists() else {},
            _load(folder / SHARED),
            own[0] if same else {},
            [] if same else own,
        )
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise RunError(
            f"training checkpoint {folder} cannot be used: {error}; remove it to go on from the one before, "
            "or to start over"
        ) from error


def check_data(progress: Progress, data: str) -> None:
    """Raise RunError where what is dealt now is not what was dealt: the sampler's place would mean nothing."""
    if progress.data != data:
        raise RunError(
            f"the training's checkpoint after step {progress.step} is of other utterances, or of another "
            "batch_seconds, max_padding, seed or reading.stream: give those back, or remove it to start over"
        )


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict of safetensors; raise RunError that names the file where it is none."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} holds no weights that can be read: {error}") from error


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Load a state dict; raise RunError where it is another model's, naming the first tensor that differs."""
    own = model.state_dict()
    for name in sorted({*own, *weights}):
        here, there = (tuple(found[name].shape) if name in found else None for found in (own, weights))
        if here != there:
            raise RunError(
                f"{what} is of another model: {name} is {there or 'not there'}, and {here or 'not there'} in this "
                "one; give `model` the settings that it was written with, or remove it"
            )
    model.load_state_dict(dict(weights))


def absent(folder: Path, ranks: int) -> list[int]:
    """Return the ranks that have not written their part yet."""
    return [rank for rank in range(ranks) if not (folder / digests_file(rank)).exists()]


def is_whole(folder: Path) -> bool:
    """Return whether every rank has written its part, and all files are there; not whether they are undamaged."""
    try:
        ranks = json.loads((folder / PROGRESS).read_text())["ranks"]
        parts = [json.loads((folder / digests_file(rank)).read_text()) for rank in range(ranks)]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return all((folder / name).is_file() for part in parts for name in part)


def weights(folder: Path) -> Path:
    """Return the file of the weights that a student is published with: the average's where there is one."""
    return folder / (AVERAGE if (folder / AVERAGE).exists() else MODEL)


def own_file(rank: int) -> str:
    """Return the name of what is a rank's own."""
    return f"rank-{rank:05d}.pt"


def digests_file(rank: int) -> str:
    """Return the name of the digests of a rank's files."""
    return f"rank-{rank:05d}.json"


def on_cpu(value: Any) -> Any:
    """Return :func:`on_device`'s copy on the CPU."""
    return on_device(value, torch.device("cpu"))


def on_device(value: Any, device: torch.device) -> Any:
    """Return a copy of nested states whose tensors lie on a device and share no memory with the original."""
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, Mapping):
        return {key: on_device(each, device) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(on_device(each, device) for each in value)
    return copy.deepcopy(value)


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a state dict as safetensors."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, path)


def _load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return found


def _check(folder: Path, rank: int) -> None:
    for name, digest in json.loads((folder / digests_file(rank)).read_text()).items():
        if _digest(folder / name) != digest:
            raise ValueError(f"{name} is damaged: it is not what was written")


def _digest(path: Path, durable: bool = False) -> str:
    with path.open("rb") as file:
        if durable:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
