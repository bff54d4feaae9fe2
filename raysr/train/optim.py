"""The optimiser and its learning-rate schedule."""

import math

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from raysr.train.job import OptimiserConfig, ScheduleConfig


def build_optimiser(model: nn.Module, config: OptimiserConfig) -> Optimizer:
    """Return AdamW over all parameters, with weight decay on matrices alone."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def build_schedule(optimiser: Optimizer, config: ScheduleConfig, steps: int) -> LambdaLR:
    """Return the schedule over `steps` updates: linear warm-up, then `config.kind` down to the final share."""
    return LambdaLR(optimiser, lambda step: learning_rate_share(step, config, steps))


def learning_rate_share(step: int, config: ScheduleConfig, steps: int) -> float:
    """Return the share of the peak learning rate at a step counted from zero."""
    warmup = min(config.warmup_steps, steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    shape = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
    }[config.kind]
    return config.final_share + (1.0 - config.final_share) * shape
