"""A process group to be examined: the default one, or one that is formed for the purpose and says who is missing."""

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from raysr.errors import RunError
from raysr.train.network.addresses import where_gloo_is_heard
from raysr.train.network.gather import Gather, address_in_group, gather_objects
from raysr.train.network.roll import Member, Roll, called
from raysr.train.network.settings import NetworkConfig, environment, of_environment

TOLD_TO_NCCL = {
    "NCCL_DEBUG": "INFO",
    "NCCL_DEBUG_SUBSYS": "INIT,NET",
    "TORCH_NCCL_BLOCKING_WAIT": "1",  # a lost rank is an error, and not the end of the process
}


@dataclass(frozen=True)
class Group:
    """What a rank knows of its group.

    Attributes:
        member: this rank.
        settings: of NCCL and gloo, as the run has them.
        log: where NCCL writes, named as in NCCL_DEBUG_FILE; None where it writes to the terminal.
        gather: gives every rank's value to all.
    """

    member: Member
    settings: Mapping[str, str]
    log: Path | None
    gather: Gather


def default_group() -> Group:
    """Return the default process group as it is; all its ranks call this."""
    member = Member(dist.get_rank(), socket.gethostname(), address_in_group())
    log = os.environ.get("NCCL_DEBUG_FILE")
    return Group(member, of_environment(os.environ), Path(log) if log else None, gather_objects)


@contextlib.contextmanager
def formed(
    network: NetworkConfig, rank: int, ranks: int, address: str, port: int, secret: bytes = b""
) -> Iterator[Group]:
    """Form the default process group for the block: of NCCL where there is CUDA, of gloo elsewhere.

    Raises:
        RunError: a rank does not come, or is lost within the block; names it.
    """
    with (
        environment(network.environment()),
        called(rank, ranks, address, port, network.timeout_s, secret) as roll,
        tempfile.TemporaryDirectory() as logs,
    ):
        group = Group(roll.members[rank], of_environment(os.environ), Path(logs) / "nccl.%p", roll.gather)
        heard = where_gloo_is_heard(group.member.address)
        with environment({**heard, **TOLD_TO_NCCL, "NCCL_DEBUG_FILE": str(group.log)}):
            try:
                _join(roll, ranks)
                yield group
            except RuntimeError as error:
                raise RunError(_explained(roll, error, network)) from error
            finally:
                if dist.is_initialized():
                    dist.destroy_process_group()


def _join(roll: Roll, ranks: int) -> None:
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    dist.init_process_group(
        "nccl" if on_gpus else "gloo",
        store=roll.store,
        rank=roll.rank,
        world_size=ranks,
        timeout=timedelta(seconds=roll.timeout),
    )


def _explained(roll: Roll, error: RuntimeError, network: NetworkConfig) -> str:
    if lost := roll.unreachable():
        return f"{roll.explain(roll.rank, lost)} any more, and the group is broken"
    reason = str(error).partition("\n")[0]
    required = "; NCCL_NET=IB makes NCCL fail without a device for RDMA" if network.require_rdma else ""
    return f"{roll.members[roll.rank]} lost the group: {reason}{required}"
