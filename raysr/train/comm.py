"""Communication hooks: what gradients look like while they cross the network."""

from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

from raysr.train.job import CommConfig


def register_hook(model: DistributedDataParallel, config: CommConfig) -> None:
    """Register the chosen hook; `none` leaves DDP's own fp32 all-reduce in place."""
    if config.hook == "fp16":
        model.register_comm_hook(None, default_hooks.fp16_compress_hook)
