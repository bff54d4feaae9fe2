"""How the ranks of a run talk: what gloo and NCCL read from the environment when a group is formed."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pydantic import Field, field_validator

from raysr.config import Config

_KNOWN = re.compile(r"(NCCL|GLOO|TORCH_NCCL|TORCH_GLOO)_[A-Z0-9_]+")


class NetworkConfig(Config):
    """The network of a run that has several hosts.

    Attributes:
        interface: over which hosts talk, called the same on all; None leaves the choice to gloo and NCCL.
        require_rdma: let NCCL fail where it would fall back to sockets.
        timeout_s: how long ranks may take to come, and a measurement to go on.
        preflight: examine the network before a training on several nodes of a cluster.
        variables: more of what NCCL and gloo read, such as ``NCCL_IB_HCA``, for this run alone.
    """

    interface: str | None = None
    require_rdma: bool = False
    timeout_s: float = Field(60.0, gt=0)
    preflight: bool = True
    variables: dict[str, str] = Field(default_factory=dict)

    @field_validator("variables")
    @classmethod
    def _of_nccl_or_gloo(cls, variables: dict[str, str]) -> dict[str, str]:
        for name in variables:
            if not _KNOWN.fullmatch(name):
                raise ValueError(
                    f"{name} is no setting of NCCL or gloo: their names begin with NCCL_ and GLOO_"
                )
        return variables

    def environment(self) -> dict[str, str]:
        """Return the environment variables of every rank, to be set before it joins a group."""
        found: dict[str, str] = {}
        if self.interface:
            # without "=" NCCL takes any interface whose name begins so
            found |= {"GLOO_SOCKET_IFNAME": self.interface, "NCCL_SOCKET_IFNAME": f"={self.interface}"}
        if self.require_rdma:
            found |= {"NCCL_NET": "IB"}
        return found | self.variables


def of_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what of an environment NCCL and gloo read."""
    return {name: value for name, value in sorted(environment.items()) if _KNOWN.fullmatch(name)}


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
