"""The network's pre-flight on a Ray cluster: a rank on every node that can train, named by node where it fails.

Ranks are bound to their nodes one by one rather than placed as a group, so that a node that cannot start its own is
known, and take no CPU, so that a busy cluster can be examined; where nodes have GPUs a rank takes one.
"""

import dataclasses
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from safetensors import safe_open

from raysr.cluster import ClusterConfig, connect, root_cause
from raysr.corpus.disk import replacing
from raysr.errors import RunError, one_line
from raysr.ports import free_port
from raysr.train.exchange.base import EXCHANGES
from raysr.train.job import Scaling, TrainJob
from raysr.train.network.payload import Shapes
from raysr.train.network.preflight import Order, preflight_of
from raysr.train.network.recommend import Accuracy
from raysr.train.network.report import Finding, Report
from raysr.train.ray_backend import hide_gpus

PORTS = range(20000, 32000)
"""Below those that Linux gives to connections, and above Ray's: one that is free stays so until rank 0 listens."""


@dataclass(frozen=True)
class Node:
    """A node of the cluster, and how much of its GPUs a rank takes."""

    id: str
    host: str
    address: str
    gpus: float

    def __str__(self) -> str:
        return f"{self.host} ({self.address})"


class _Rank:
    """One node's part."""

    def arrive(self) -> tuple[int, bool]:
        """Return a free port, and whether Ray asks for a token here."""
        return free_port(secrets.choice(PORTS)), os.environ.get("RAY_AUTH_MODE") == "token"

    def examine(self, order: Order, rank: int, ranks: int, address: str, port: int, secret: bytes) -> Report:
        hide_gpus()
        return preflight_of(order, rank, ranks, address, port, secret)


def preflight_at(config: ClusterConfig, order: Order) -> Report:
    """Join a cluster, or start a local one, for :func:`preflight_cluster`.

    Raises:
        RunError: the cluster does not answer, or refuses this host's token; or as :func:`preflight_cluster` does.
    """
    with connect(config):
        return preflight_cluster(order)


def check_network(job: TrainJob, scaling: Scaling) -> None:
    """Examine the network before a training, where several nodes of the connected cluster have room for its workers.

    What was found goes to ``preflight.json`` in the training's folder.

    Raises:
        RunError: training would not work, or not as asked; or as :func:`preflight_cluster` raises.
    """
    nodes = _with_room(scaling)
    if not job.network.preflight or scaling.max == 1 or len(nodes) < 2:
        return
    comm = EXCHANGES.check(job.train.comm)
    accuracy: Accuracy = comm.options["accuracy"] if comm.kind == "auto" else "compressed"
    order = Order(job.network, Path(job.out), _shapes(job.init), accuracy)
    report = preflight_cluster(order, nodes)
    with replacing(Path(job.out) / "preflight.json") as file:
        file.write(json.dumps(report.dump(), indent=2).encode() + b"\n")
    failures = [finding for finding in report.findings if finding.level == "failure"]
    if failures:
        said = "; ".join(f"{f.check}, {f.where or 'all hosts'}: {f.found} ({f.mend})" for f in failures)
        raise RunError(one_line(f"the network is not fit for training: {said}"))


def preflight_cluster(order: Order, nodes: Sequence[Node] | None = None) -> Report:
    """Examine the network between nodes of the connected cluster; None: between all that can train.

    Raises:
        RunError: a node starts no rank, or ranks do not reach each other; names them.
    """
    nodes = _nodes() if nodes is None else nodes
    ranks = [_on(node) for node in nodes]
    try:
        arrived = _arrivals(nodes, ranks, order.network.timeout_s)
        place = nodes[0].address, arrived[0][0], secrets.token_bytes(32)
        examined = [actor.examine.remote(order, rank, len(ranks), *place) for rank, actor in enumerate(ranks)]
        report: Report = ray.get(examined)[0]
    except RayError as error:
        raise RunError(root_cause(error)) from error
    finally:
        for actor in ranks:
            ray.kill(actor)
    token = _token([asked for _, asked in arrived])
    return dataclasses.replace(report, findings=(*report.findings, token, *_gone(nodes)))


def _nodes() -> list[Node]:
    """Return the nodes that some training's workers may be put on, by address."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    unit = "GPU" if any(node["Resources"].get("GPU") for node in alive) else "CPU"
    able = [node for node in alive if node["Resources"].get(unit)]
    if not able:
        raise RunError("no node of the cluster has a CPU to train on")
    return _by_address(able, 1 if unit == "GPU" else 0)


def _with_room(scaling: Scaling) -> list[Node]:
    """Return the nodes that workers may be put on, by address; without those whose GPUs are taken."""
    free = available_resources_per_node()
    able = [
        node
        for node in ray.nodes()
        if node["Alive"]
        and node["Resources"].get("CPU", 0) >= scaling.cpus
        and free.get(node["NodeID"], {}).get("GPU", 0) >= scaling.gpus
    ]
    return _by_address(able, scaling.gpus)


def _by_address(nodes: Sequence[dict[str, Any]], gpus: float) -> list[Node]:
    found = (Node(n["NodeID"], n["NodeManagerHostname"], n["NodeManagerAddress"], gpus) for n in nodes)
    return sorted(found, key=lambda node: node.address)


def _on(node: Node) -> Any:
    options: dict[str, Any] = {
        "num_cpus": 0,
        "num_gpus": node.gpus,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False),
    }
    return ray.remote(_Rank).options(**options).remote()


def _arrivals(nodes: Sequence[Node], ranks: Sequence[Any], timeout: float) -> list[tuple[int, bool]]:
    """Return what every rank says on arrival, once all have."""
    calls = [actor.arrive.remote() for actor in ranks]
    _, late = ray.wait(calls, num_returns=len(calls), timeout=timeout)
    if late:
        absent = ", ".join(str(node) for node, call in zip(nodes, calls, strict=True) if call in late)
        raise RunError(
            f"no rank of the pre-flight started within {timeout:g} s on {absent}: the node is cut off, "
            "overloaded, or has no GPU free"
        )
    found = []
    for node, call in zip(nodes, calls, strict=True):
        try:
            found.append(ray.get(call, timeout=timeout))
        except (RayError, GetTimeoutError) as error:
            raise RunError(f"the pre-flight's rank on {node} failed: {root_cause(error)}") from error
    return found


def _token(asked: Sequence[bool]) -> Finding:
    if all(asked):
        return Finding("ok", "token", "Ray asks for one on all nodes")
    mend = "`ray get-auth-token --generate`, copy ~/.ray/auth_token to all hosts, start Ray with RAY_AUTH_MODE=token"
    return Finding("warning", "token", "Ray asks for none: who reaches it runs code on it", "", mend)


def _gone(nodes: Sequence[Node]) -> list[Finding]:
    """Return the nodes that Ray has given up and that have not come back."""
    back = {node.address for node in nodes}
    return [
        Finding(
            "warning",
            "node",
            f"Ray has declared it dead: {node.get('DeathReasonMessage') or 'no reason given'}",
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
            "if it was not meant to leave, look at its raylet's log",
        )
        for node in ray.nodes()
        if not node["Alive"] and node["NodeManagerAddress"] not in back
    ]


def _shapes(weights: str) -> Shapes:
    """Return the shapes of the tensors in a file of weights."""
    with safe_open(weights, "pt") as file:
        names = file.keys()
        return [tuple(file.get_slice(name).get_shape()) for name in names]
