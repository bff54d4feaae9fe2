"""The network's pre-flight on a Ray cluster: a rank on every node that can train, named by node where it fails.

Ranks are bound to their nodes one by one rather than placed as a group, so that a node that cannot start its own is
known, and take no CPU, so that a busy cluster can be examined; where nodes have GPUs a rank takes one.
"""

import dataclasses
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled, its stub leaves it out
from ray.exceptions import AuthenticationError, GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysr.cluster import CONNECT_S, ClusterConfig, connect, root_cause
from raysr.errors import RunError
from raysr.ports import free_port
from raysr.train.network.preflight import Order, preflight_of
from raysr.train.network.report import Finding, Report


@dataclass(frozen=True)
class _Node:
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
        return free_port(0), os.environ.get("RAY_AUTH_MODE") == "token"

    def examine(self, order: Order, rank: int, ranks: int, address: str, port: int) -> Report:
        return preflight_of(order, rank, ranks, address, port)


def preflight_at(config: ClusterConfig, order: Order) -> Report:
    """Join a cluster, or start a local one, for :func:`preflight_cluster`.

    Raises:
        RunError: the cluster does not answer, or refuses this host's token; or as :func:`preflight_cluster` does.
    """
    address = config.address or os.environ.get("RAY_ADDRESS")
    if address:
        _check_token(address)
    with connect(config):
        return preflight_cluster(order)


def preflight_cluster(order: Order) -> Report:
    """Examine the network between the nodes of the connected cluster.

    Raises:
        RunError: a node starts no rank, or ranks do not reach each other; names them.
    """
    nodes = _nodes()
    ranks = [_on(node) for node in nodes]
    try:
        arrived = _arrivals(nodes, ranks, order.network.timeout_s)
        place = nodes[0].address, arrived[0][0]
        examined = [actor.examine.remote(order, rank, len(ranks), *place) for rank, actor in enumerate(ranks)]
        report: Report = ray.get(examined)[0]
    except RayError as error:
        raise RunError(root_cause(error)) from error
    finally:
        for actor in ranks:
            ray.kill(actor)
    token = _token([asked for _, asked in arrived])
    return dataclasses.replace(report, findings=(*report.findings, token, *_gone(nodes)))


def _check_token(address: str) -> None:
    """Raise RunError where a cluster refuses this host's token; Ray 2.60 itself would try it again for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
        ensure_token_if_auth_enabled(create_token_if_missing=False)
        GcsClient(address=address)
    except AuthenticationError as error:
        raise RunError(
            f"the cluster at {address} refuses this host's token: copy ~/.ray/auth_token from one of its hosts, or "
            "set RAY_AUTH_TOKEN, and RAY_AUTH_MODE=token"
        ) from error
    except (OSError, ValueError):
        return  # nobody is there, or the address is of another form, which is not about tokens


def _nodes() -> list[_Node]:
    """Return the nodes that a training's workers may be put on, by address."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    unit = "GPU" if any(node["Resources"].get("GPU") for node in alive) else "CPU"
    able = [node for node in alive if node["Resources"].get(unit)]
    if not able:
        raise RunError("no node of the cluster has a CPU to train on")
    return [
        _Node(
            node["NodeID"],
            node["NodeManagerHostname"],
            node["NodeManagerAddress"],
            node["Resources"].get("GPU", 0),
        )
        for node in sorted(able, key=lambda node: str(node["NodeManagerAddress"]))
    ]


def _on(node: _Node) -> Any:
    options: dict[str, Any] = {
        "num_cpus": 0,
        "num_gpus": 1 if node.gpus else 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False),
    }
    return ray.remote(_Rank).options(**options).remote()


def _arrivals(nodes: Sequence[_Node], ranks: Sequence[Any], timeout: float) -> list[tuple[int, bool]]:
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


def _gone(nodes: Sequence[_Node]) -> list[Finding]:
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
