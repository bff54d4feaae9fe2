"""Exchanges of gradients: after every step's last backward pass all ranks have the same, by PyTorch's DDP."""

import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

from raysr.config import Config as Options
from raysr.train.exchange.base import ExchangeContext, Loss
from raysr.train.exchange.waiting import Waiting
from raysr.train.hooks.blocks import CODECS, CompressedMean
from raysr.train.hooks.layout import Hook, gathering
from raysr.train.hooks.powersgd import PowerSGD
from raysr.train.hooks.traffic import Traffic

WIRES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Plain:
    """The mean in float32, as DDP makes it while the backward pass goes on."""

    class Config(Options):
        """``bucket_mb``: gradients that go together."""

        bucket_mb: float = Field(25.0, gt=0)

    wire: ClassVar[torch.dtype] = torch.float32

    def __init__(self, config: Config, context: ExchangeContext) -> None:
        self.context, self.traffic = context, Traffic()
        self.waiting = Waiting(context.model, context.device)
        # of depthwise filters, whose one input channel may have any stride: nothing is slower for it
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        self.ddp = DistributedDataParallel(
            context.model,
            device_ids=[context.device] if context.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            bucket_cap_mb=config.bucket_mb,
            forward_sync_buffers=False,  # nothing writes them, and ranks may differ in their number of passes
        )
        if hook := self._hook(config):
            self.ddp.register_comm_hook(None, hook)

    @property
    def diverges(self) -> bool:
        return False

    @property
    def waited(self) -> float:
        return self.waiting.seconds

    def backward(self, loss: Loss, last: bool = True, scale: float = 1.0) -> None:
        with nullcontext() if last else self.ddp.no_sync():
            value = loss(self.ddp)
            with self.waiting.after_gradients():
                value.backward()
        if last:
            self._count()

    def stepped(self, last: bool = False) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass

    def adopt(self, state: Any, steps: int) -> None:
        pass

    def _hook(self, config: Any) -> Hook | None:
        return None

    def _count(self) -> None:
        for parameter in self.context.model.parameters():
            if parameter.requires_grad:
                self.traffic.all_reduce(torch.empty(parameter.shape, dtype=self.wire, device="meta"))


class Float16(Plain):
    """The mean in float16: half the bytes; a gradient below 6e-8 is lost, one above 65504 is no step for anyone."""

    wire = torch.float16

    def _hook(self, config: Any) -> Hook:
        return default_hooks.fp16_compress_hook


class BFloat16(Plain):
    """The mean in bfloat16: half the bytes, float32's range, three digits."""

    wire = torch.bfloat16

    def _hook(self, config: Any) -> Hook:
        return default_hooks.bf16_compress_hook


class LowRank(Plain):
    """PowerSGD: see :mod:`raysr.train.hooks.powersgd`."""

    class Config(Plain.Config):
        """As in :class:`~raysr.train.hooks.powersgd.PowerSGD`; ``start`` steps go as they are, as warm-up's should."""

        rank: int = Field(4, ge=1)
        start: int = Field(200, ge=0)
        error_feedback: bool = True
        warm_start: bool = True
        min_ratio: float = Field(2.0, ge=1)
        wire: Literal["fp32", "bf16"] = "fp32"

    def _hook(self, config: Config) -> Hook:
        options = config.model_dump(exclude={"bucket_mb", "wire"})
        self.powersgd = PowerSGD(
            **options, wire=WIRES[config.wire], seed=self.context.seed, traffic=self.traffic
        )
        return gathering(self.context.model, self.powersgd)

    def backward(self, loss: Loss, last: bool = True, scale: float = 1.0) -> None:
        self.powersgd.scale = scale
        super().backward(loss, last, scale)

    def state_dict(self) -> dict[str, Any]:
        return self.powersgd.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self.powersgd.load_state_dict(state)

    def adopt(self, state: Any, steps: int) -> None:
        fitting = {n: f for n, f in state.get("factors", {}).items() if f.shape[1] == self.powersgd.rank}
        self.powersgd.load_state_dict({"step": steps, "errors": {}, "factors": fitting})

    def _count(self) -> None:
        pass  # the hook counts what it sends


class Blocks(Plain):
    """Few bits a number, with a scale for every block and error feedback: see :mod:`raysr.train.hooks.blocks`."""

    class Config(Plain.Config):
        """``start``: steps of which gradients go as they are."""

        start: int = Field(200, ge=0)

    codec: ClassVar[str]

    def _hook(self, config: Config) -> Hook:
        self.start, self.steps, self.scale = config.start, 0, 1.0
        self.mean = CompressedMean(CODECS[self.codec](), self.traffic)
        return gathering(self.context.model, self._reduce)

    def backward(self, loss: Loss, last: bool = True, scale: float = 1.0) -> None:
        self.scale = scale
        super().backward(loss, last, scale)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, **self.mean.state_dict()}

    def load_state_dict(self, state: Any) -> None:
        self.steps = int(state["steps"])
        self.mean.load_state_dict(state)

    def adopt(self, state: Any, steps: int) -> None:
        self.steps = steps
        self.mean.load_state_dict({"error": None, "own_error": None})

    def _reduce(self, gradients: Mapping[str, Tensor]) -> None:
        """Replace gradients by their mean, or by NaN where any rank's are not finite; errors know no scale."""
        if self.steps < self.start:
            flat = torch.cat([g.flatten() for g in gradients.values()]).div_(dist.get_world_size())
            self.traffic.all_reduce(flat)
            dist.all_reduce(flat)
            means = list(flat.split([g.numel() for g in gradients.values()]))
            finite = bool(flat.isfinite().all())
        else:
            found = self.mean([g / self.scale for g in gradients.values()])
            means, finite = [m * self.scale for m in found or ()], found is not None
        for place, gradient in enumerate(gradients.values()):
            if finite:
                gradient.copy_(means[place].view_as(gradient))
            else:
                gradient.fill_(float("nan"))
        self.steps += finite

    def _count(self) -> None:
        pass  # the hook counts what it sends


class EightBits(Blocks):
    """A byte a number."""

    codec = "8bit"


class OneBitEach(Blocks):
    """A sign a number."""

    codec = "1bit"
