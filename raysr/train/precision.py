"""Mixed precision: which type the forward pass uses on this device, and whether its gradients need scaling.

Autocast halves what layers compute with. Whatever the type, these stay float32: features, CMVN, the softmax and the
losses of both heads, recurrences, weights and their gradients, the gradients' norm, the moving average of the weights,
and what exchanges keep from step to step.
"""

import contextlib
from dataclasses import dataclass

import torch
import torch.distributed as dist

from raysr.errors import ConfigError
from raysr.train.network.gather import gather_objects

ALL_CAN = ("fp32", "fp16", "bf16")
"""By how many devices can: what one of them can, those before can be had of all that ask for ``auto``."""
TYPES: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """The chosen autocast type (None: plain fp32) and the loss scaler that goes with it."""

    dtype: torch.dtype | None
    scaler: torch.amp.GradScaler
    device_type: str

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, dtype=self.dtype)


def choose(name: str, device: torch.device, insist: bool = False) -> Precision:
    """Turn ``auto``, ``fp32``, ``bf16`` or ``fp16`` into what this device runs.

    ``auto`` is bf16 on GPUs that have it (Ampere and newer), fp16 with loss scaling where any rank's is older, and fp32
    on a CPU; all ranks of the default process group, if there is one, ask together. Only fp16 scales its loss.

    Args:
        name: of the precision.
        device: that the model is on.
        insist: take a type that the device only emulates, as slow as that is.

    Raises:
        ConfigError: the device only emulates the type.
    """
    if name == "auto":
        name = _best_of_all(_best(device))
    if not insist:
        check(name, device)
    scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")
    return Precision(TYPES[name], scaler, device.type)


def check(name: str, device: torch.device) -> None:
    """Raise :class:`ConfigError` where a device has no hardware for the type that it is asked for by name.

    What is emulated is slower than fp32: by an order of magnitude on a CPU.
    """
    if name in ("auto", "fp32") or _in_hardware(name, device):
        return
    other = "fp32" if device.type == "cpu" else "fp16"
    raise ConfigError(
        f"precision: {name} is nothing that this {'CPU' if device.type == 'cpu' else 'GPU'} has in hardware, and "
        f"emulated it is far slower than {other}: set it to {other}, or to auto"
    )


def _best(device: torch.device) -> str:
    if device.type != "cuda":
        return "fp32"
    return "bf16" if _in_hardware("bf16", device) else "fp16"


def _best_of_all(own: str) -> str:
    """Return what all ranks can: a loss that one scales and another does not has no mean."""
    found = gather_objects(own) if dist.is_available() and dist.is_initialized() else [own]
    return min(found, key=ALL_CAN.index)


def _in_hardware(name: str, device: torch.device) -> bool:
    if device.type == "cuda":
        return name == "fp16" or torch.cuda.is_bf16_supported(including_emulation=False)
    supported = torch.ops.mkldnn
    return bool(
        supported._is_mkldnn_bf16_supported() if name == "bf16" else supported._is_mkldnn_fp16_supported()
    )
