"""Training checkpoints: everything an exact resume needs, in a folder written whole or not at all."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raysr.errors import RunError


@dataclass(frozen=True)
class Progress:
    """How far a training is. Random draws are functions of (seed, step, rank), so they need no state here."""

    step: int
    sampler: dict[str, Any]
    skipped_steps: int


def save(folder: Path, model: nn.Module, state: dict[str, Any], progress: Progress) -> None:
    """Write weights, optimiser, schedule and scaler states, and progress into an existing folder."""
    save_weights(folder / "model.safetensors", model.state_dict())
    torch.save(state, folder / "optimiser.pt")
    (folder / "progress.json").write_text(json.dumps(asdict(progress)))


def load(folder: Path, model: nn.Module) -> tuple[dict[str, Any], Progress]:
    """Load weights into `model`; return the other states and the progress."""
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
        state = torch.load(folder / "optimiser.pt", weights_only=True, map_location="cpu")
        progress = Progress(**json.loads((folder / "progress.json").read_text()))
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise RunError(
            f"training checkpoint {folder} cannot be used: {error}; remove it to start over"
        ) from error
    return state, progress


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write a state dict as safetensors."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, path)
