"""Mixed precision: which type the forward pass uses on this device, and whether its gradients need scaling."""

import contextlib
from dataclasses import dataclass

import torch


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


def choose(name: str, device: torch.device) -> Precision:
    """Turn `auto`, `fp32`, `bf16` or `fp16` into what this device runs.

    `auto` is bf16 on GPUs that have it (Ampere and newer), fp16 with loss scaling on older ones and fp32 on a CPU,
    where half types without hardware support are an order of magnitude slower. Only fp16 scales its loss.
    """
    if name == "auto":
        if device.type != "cuda":
            name = "fp32"
        else:
            name = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
    return Precision(dtype, torch.amp.GradScaler(device.type, enabled=name == "fp16"), device.type)
