"""The network's pre-flight: what training across hosts will meet, tried and measured before it starts.

Every rank takes part, and all get the same report. Ranks that are not in a group yet form one for the time being:

    torchrun --nnodes 2 --node-rank N --master-addr A --master-port P -m raysr.train.network --dir FOLDER

or one process a host with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT in its environment.
"""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist

import raysr
from raysr.errors import RunError
from raysr.train.network.addresses import claimed_mbit, gloo_address, interface_of, sent_bytes
from raysr.train.network.findings import judge, judge_storage
from raysr.train.network.group import Group, default_group, formed
from raysr.train.network.links import measure
from raysr.train.network.nccl_log import Transport, read_transport
from raysr.train.network.payload import Shapes
from raysr.train.network.rdma import read_host
from raysr.train.network.recommend import Accuracy, recommend
from raysr.train.network.report import Carried, Rank, Report, first_of_hosts
from raysr.train.network.settings import NetworkConfig
from raysr.train.network.storage import look

MUCH = 1_000_000  # bytes: less is not what was measured


@dataclass(frozen=True)
class Order:
    """What a group is examined for.

    Attributes:
        network: the run's settings.
        storage: the run's folder, which all hosts are to share.
        shapes: of the parameters to be trained, for a recommendation.
        accuracy: what that training puts up with.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    storage: Path | None = None
    shapes: Shapes | None = None
    accuracy: Accuracy = "compressed"


def preflight(order: Order) -> Report:
    """Examine the default process group, or one that is formed for it as the environment says.

    Raises:
        RunError: a rank does not come or does not answer; names it.
    """
    if dist.is_initialized():
        return _examine(order, default_group())
    try:
        rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    except KeyError as missing:
        raise RunError(f"{missing.args[0]} is not set: start every rank by torchrun, or set it") from None
    return preflight_of(order, rank, ranks, address, port)


def preflight_of(order: Order, rank: int, ranks: int, address: str, port: int, secret: bytes = b"") -> Report:
    """Form a group whose rank 0 listens at ``address:port``, examine it, and end it.

    What ranks tell each other is signed with a secret that only they know, if they have one.

    Raises:
        RunError: a rank does not come or does not answer; names it.
    """
    with formed(order.network, rank, ranks, address, port, secret) as group:
        return _examine(order, group)


def _examine(order: Order, group: Group) -> Report:
    ranks = group.gather(_rank(group))
    firsts = [rank.member.rank for rank in first_of_hosts(ranks)]
    on_storage = []
    if order.storage:
        sights = look(order.storage, group.member.rank, firsts, group.gather)
        on_storage = judge_storage(ranks, sights, order.storage)
    on_gpu = dist.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    before = sent_bytes()
    links = measure(device, firsts)
    carried = group.gather(_carried(before, group.log))
    recommendation = None
    if order.shapes:
        recommendation = recommend(links, len(ranks), order.shapes, None, order.accuracy, not on_gpu)
    findings = judge(ranks, carried, links, order.network.require_rdma)
    return Report(tuple(ranks), tuple(carried), links, (*findings, *on_storage), recommendation)


def _rank(group: Group) -> Rank:
    versions = {"raysr": raysr.__version__, "torch": torch.__version__, "Python": platform.python_version()}
    if dist.get_backend() == "nccl":
        versions["NCCL"] = ".".join(map(str, torch.cuda.nccl.version()))
    return Rank(
        member=group.member,
        interface=interface_of(group.member.address),
        gloo_address=gloo_address(),
        backend=dist.get_backend(),
        versions=versions,
        settings=group.settings,
        rdma=read_host(),
    )


def _carried(before: Mapping[str, int], log: Path | None) -> Carried:
    grown = {name: sent - before.get(name, 0) for name, sent in sent_bytes().items() if name != "lo"}
    most = max(grown, key=grown.__getitem__, default=None)
    interface = most if most and grown[most] > MUCH else None
    return Carried(interface, claimed_mbit(interface) if interface else None, _transport(log))


def _transport(log: Path | None) -> Transport | None:
    """Return what this process's NCCL has written to the files of a name as in NCCL_DEBUG_FILE."""
    if log is None:
        return None
    pattern = log.name.replace("%h", "*").replace("%p", str(os.getpid()))
    lines = [
        line for file in log.parent.glob(pattern) for line in file.read_text(errors="replace").splitlines()
    ]
    return read_transport(lines) if lines else None
