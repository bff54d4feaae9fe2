"""Whether NCCL goes over RDMA, and what hosts have and lack for it."""

from collections.abc import Sequence

from raysr.train.network.report import Carried, Finding, Level, Rank, first_of_hosts


def judge_rdma(ranks: Sequence[Rank], carried: Sequence[Carried], required: bool) -> list[Finding]:
    """Return which way the group's bytes went, and what is missing for the best one."""
    return [_transport(ranks, carried, required), *_cards(ranks, required)]


def _transport(ranks: Sequence[Rank], carried: Sequence[Carried], required: bool) -> Finding:
    if ranks[0].backend != "nccl":
        mend = "RDMA needs GPUs and NCCL on all hosts" if required else ""
        return Finding(
            "failure" if required else "ok", "transport", f"sockets, by {ranks[0].backend}", "", mend
        )
    told = [seen.transport for seen in carried if seen.transport]
    if len(told) < len(carried):
        mend = (
            "let raysr form the group, or set NCCL_DEBUG=INFO, NCCL_DEBUG_SUBSYS=INIT,NET and NCCL_DEBUG_FILE"
        )
        return Finding("failure" if required else "warning", "transport", "NCCL wrote no log", "", mend)
    said = "; ".join(dict.fromkeys(map(str, told)))
    if all(transport.is_rdma for transport in told):
        # channels tell of GPUDirect; where a log has none, there is nothing to complain of
        staged = any(transport.channels and not transport.is_direct for transport in told)
        return Finding("warning" if staged else "ok", "transport", said)
    has_cards = any(port.active for rank in ranks for port in rank.rdma.ports)
    return Finding("failure" if required else "warning" if has_cards else "ok", "transport", said)


def _cards(ranks: Sequence[Rank], required: bool) -> list[Finding]:
    hosts = first_of_hosts(ranks)
    without = [rank.member.place for rank in hosts if not rank.rdma.ports]
    if len(without) == len(hosts):
        return [Finding("failure" if required else "ok", "RDMA", "no host has a card for it: sockets it is")]
    findings = []
    if without:
        mend = (
            "a group with one such host uses sockets, or does not form at all: see drivers and devices there"
        )
        level: Level = "failure" if required else "warning"
        findings.append(Finding(level, "RDMA", "no card for it here", ", ".join(without), mend))
    for rank in hosts:
        ports = ", ".join(f"{port.name} {port.gbit:g} Gbit/s" for port in rank.rdma.ports)
        problems = rank.rdma.problems()
        findings += [Finding("warning", "RDMA", problem, rank.member.place) for problem in problems]
        if ports and not problems:
            findings.append(Finding("ok", "RDMA", ports, rank.member.place))
    return [*findings, *_mtus(hosts), *_lossless(hosts)]


def _mtus(hosts: Sequence[Rank]) -> list[Finding]:
    found = {rank.member.place: {port.mtu for port in rank.rdma.ports if port.mtu} for rank in hosts}
    if len(set().union(*found.values())) < 2:
        return []
    said = "; ".join(
        f"{', '.join(map(str, sorted(mtus)))} on {place}" for place, mtus in found.items() if mtus
    )
    return [Finding("warning", "MTU", said, "", "give all interfaces and switches the same, best 9000")]


def _lossless(hosts: Sequence[Rank]) -> list[Finding]:
    """Ask for what no host can see: whether switches keep RoCE's packets from being dropped."""
    unnamed = [
        rank
        for rank in hosts
        if "NCCL_IB_TC" not in rank.settings
        and any(port.active and port.link == "Ethernet" for port in rank.rdma.ports)
    ]
    if not unnamed:
        return []
    interface = next(port.interface for port in unnamed[0].rdma.ports if port.link == "Ethernet")
    return [
        Finding(
            "warning",
            "lossless",
            "NCCL_IB_TC names no traffic class, so that RoCE shares that of everything else",
            ", ".join(rank.member.place for rank in unnamed),
            f"dropped packets look like stalls: let switches have a class with PFC and ECN, compare `mlnx_qos -i "
            f"{interface}`, and name it, such as NCCL_IB_TC=106 for DSCP 26",
        )
    ]
