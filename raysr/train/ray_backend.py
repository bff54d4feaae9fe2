"""How the workers of Ray Train become a process group: by the run's network, and where all others hear them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend
from ray.util import get_node_ip_address

from raysr.train.network.addresses import where_gloo_is_heard
from raysr.train.watch import TOLD_TO_TORCH


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(_prepare, backend_config.environment)
        super().on_start(worker_group, backend_config)


@dataclass
class GroupConfig(TorchConfig):
    """Ray's, of workers that have their environment before they meet.

    Attributes:
        environment: variables that gloo and NCCL read, the same on all hosts.
    """

    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def backend_cls(self) -> type[_Backend]:
        """Return what starts the group."""
        return _Backend


def _prepare(environment: Mapping[str, str]) -> None:
    hide_gpus()
    os.environ.update({**where_gloo_is_heard(get_node_ip_address()), **TOLD_TO_TORCH, **environment})


def hide_gpus() -> None:
    """Let a worker that was given no GPU see none: Ray shows it all of its host's, which others have."""
    if not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
