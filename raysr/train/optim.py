"""The optimiser, what a checkpoint keeps of it, and its learning-rate schedule."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim import AdamW, Optimizer

from raysr.train.checkpoint import on_cpu
from raysr.train.hooks.blocks import CODECS, CompressedMean
from raysr.train.hooks.traffic import Traffic
from raysr.train.job import OptimiserConfig, ScheduleConfig
from raysr.train.onebit_adam import Mean, MeanOfOne, OneBitAdam


class ShardedAdamW(ZeroRedundancyOptimizer):
    """AdamW whose states are shared out: a rank keeps those of its share of the parameters, and updates these.

    Stage 1 of ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054); a parameter belongs to one rank whole. What PyTorch
    has to save and load it is not used: it pickles every share to all ranks, which takes seconds; and on a GPU a share
    that was loaded is there twice, with its steps where the fused kernel cannot read them (pytorch/pytorch#124133).

    Args:
        groups: of parameters, the same on all ranks.
        model: whose parameters they are; a rank's share of them becomes one piece of memory, that one broadcast
            sends, except where there is an LSTM, whose layers cuDNN wants in pieces of its own.
        traffic: counts the weights that are sent.
        options: of AdamW.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], model: nn.Module, traffic: Traffic, **options: Any
    ) -> None:
        pieces = any(isinstance(module, nn.RNNBase) for module in model.modules())
        super().__init__(list(groups), AdamW, parameters_as_bucket_view=not pieces, **options)
        share = torch.empty(sum(p.numel() for p in _places(self.optim)), device="meta")
        self.register_step_post_hook(lambda *_: traffic.all_gather(share))

    def gathered(self) -> dict[str, Any] | None:
        """Return AdamW's state, whole and on the CPU, on the first rank, None on others; all ranks call it."""
        places = _places(self)
        own = {places[p]: state for p, state in self.optim.state.items()}
        of_ranks: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(of_ranks, {place: float(state["step"]) for place, state in own.items()})
        parts = sorted(
            (place, step, rank) for rank, steps in enumerate(of_ranks) for place, step in steps.items()
        )
        parameters, states = list(places), {}
        for place, step, rank in parts:
            moments = {
                name: _sent_to_first(own[place][name] if place in own else None, parameters[place], rank)
                for name in ("exp_avg", "exp_avg_sq")
            }
            states[place] = {"step": torch.tensor(step), **moments}
        if dist.get_rank() > 0:
            return None
        groups = [{**group, "params": [places[p] for p in group["params"]]} for group in self.param_groups]
        return {"state": states, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take this rank's share of an AdamW's whole state, whatever the number of ranks that it comes from."""
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({name: value for name, value in saved.items() if name != "params"})
        places, states = _places(self), state_dict["state"]
        own = {n: states[places[p]] for p, n in _places(self.optim).items() if places[p] in states}
        self.optim.load_state_dict({"state": own, "param_groups": self.optim.state_dict()["param_groups"]})


def build_optimiser(
    model: nn.Module,
    config: OptimiserConfig,
    traffic: Traffic | None = None,
    compresses: bool | None = None,
) -> Optimizer:
    """Return the optimiser of all parameters of a replica, with weight decay on matrices alone.

    Args:
        model: the same on all ranks of the default process group, if there is one, and where it is to stay.
        config: says which; a rank by itself has nothing to share or to compress, and computes the same without.
        traffic: counts what the optimiser sends.
        compresses: whether momenta are compressed; None: where there are others to send them to.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    traffic = Traffic() if traffic is None else traffic
    if config.kind == "onebit_adam":
        compresses = not _alone() if compresses is None else compresses
        mean: Mean = CompressedMean(CODECS["1bit"](), traffic) if compresses else MeanOfOne()
        return OneBitAdam(groups, mean, config.freeze_step, lr=config.lr, betas=config.betas)
    if config.kind == "zero" and not _alone():
        return ShardedAdamW(groups, model, traffic, lr=config.lr, betas=config.betas, fused=True)
    return AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def shared_state(optimiser: Optimizer) -> dict[str, Any] | None:
    """Return a copy on the CPU of what all ranks have in common, on the first one, None on others; all call it."""
    if isinstance(optimiser, ShardedAdamW):
        return optimiser.gathered()
    if not _alone() and dist.get_rank() > 0:
        return None
    state: dict[str, Any] = on_cpu({k: v for k, v in optimiser.state_dict().items() if k != "mean"})
    return state


def own_state(optimiser: Optimizer) -> dict[str, Any]:
    """Return a copy on the CPU of what this rank needs besides to go on exactly: errors of its compression."""
    return {"mean": on_cpu(optimiser.mean.state_dict())} if isinstance(optimiser, OneBitAdam) else {}


def load_shared_state(optimiser: Optimizer, state: Mapping[str, Any]) -> None:
    """Go on where :func:`shared_state` was called, in a group of any size; all ranks get the whole."""
    optimiser.load_state_dict(dict(state))


def load_own_state(optimiser: Optimizer, state: Mapping[str, Any]) -> None:
    """Go on where this rank's :func:`own_state` was called, in a group of as many ranks."""
    if isinstance(optimiser, OneBitAdam):
        optimiser.load_mean(state["mean"])


def learning_rate_share(step: int, config: ScheduleConfig, steps: int) -> float:
    """Return the share of the peak learning rate at a step counted from zero.

    ``noam`` is that of Vaswani et al. 2017 (arXiv 1706.03762, section 5.3) over its peak, which no warm-up puts at the
    first step; it has no end to reach, so that the final share is the least it comes to.
    """
    warmup = min(config.warmup_steps, steps)
    if step < warmup:
        return (step + 1) / warmup
    if config.kind == "noam":
        return max(config.final_share, math.sqrt(max(1, warmup) / (step + 1)))
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    shape = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
    }[config.kind]
    return config.final_share + (1.0 - config.final_share) * shape


def _alone() -> bool:
    return not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1


def _places(optimiser: Optimizer) -> dict[Tensor, int]:
    """Return where each parameter stands in an optimiser's ``state_dict``."""
    parameters = (p for group in optimiser.param_groups for p in group["params"])
    return {p: place for place, p in enumerate(parameters)}


def _sent_to_first(tensor: Tensor | None, like: Tensor, owner: int) -> Tensor | None:
    """Return the owner's tensor on the CPU of the first rank, None on others."""
    rank = dist.get_rank()
    if tensor is not None and rank > 0:
        dist.send(tensor.contiguous(), 0)
    elif tensor is not None:
        return tensor.detach().to("cpu", copy=True)
    elif rank == 0:
        received = torch.empty_like(like, memory_format=torch.contiguous_format)
        dist.recv(received, owner)
        return received.cpu()
    return None
