"""What the pre-flight's observations mean: each a finding, with what would be right where something is not."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from raysr.train.network.addresses import is_loopback
from raysr.train.network.links import Links
from raysr.train.network.rdma_findings import judge_rdma
from raysr.train.network.report import Carried, Finding, Level, Rank, first_of_hosts
from raysr.train.network.storage import Sight
from raysr.train.network.units import duration, speed

EXPECTED_SHARE = 0.7  # of a claimed speed, below which the link or the claim is wrong
SLOW_PAIR = 0.5  # of the median pair's speed


def judge(
    ranks: Sequence[Rank], carried: Sequence[Carried], links: Links, require_rdma: bool
) -> list[Finding]:
    """Return what there is to say of a group, all but its storage."""
    alike = [
        *_alike(ranks, "versions", lambda rank: rank.versions, "failure", "install the same on all hosts"),
        *_alike(ranks, "settings", _of_no_interface, "warning", "set it alike on all hosts"),
    ]
    if len(first_of_hosts(ranks)) == 1:
        return [*alike, Finding("ok", "links", "one host: nothing crosses a network")]
    return [
        *alike,
        *_names(ranks),
        Finding("ok", "links", _links(links)),
        *_interfaces(ranks, carried, links),
        *_slow_pairs(ranks, links),
        *judge_rdma(ranks, carried, require_rdma),
    ]


def judge_storage(ranks: Sequence[Rank], sights: Sequence[Sight], folder: Path) -> list[Finding]:
    """Return whether all hosts can use a folder, and whether it is the same one for all."""
    findings = []
    for rank, sight in zip(ranks, sights, strict=True):
        if sight.error:
            mend = "make it writable there, or choose another folder"
            findings.append(
                Finding("failure", "storage", f"{folder}: {sight.error}", rank.member.place, mend)
            )
        elif sight.unseen:
            others = ", ".join(ranks[other].member.place for other in sight.unseen)
            mend = (
                "mount the same storage on all hosts, for any of them may write the checkpoint that all read"
            )
            found = f"{folder} is not that of {others}"
            findings.append(Finding("failure", "storage", found, rank.member.place, mend))
    return findings or [Finding("ok", "storage", f"{folder} can be written, and is the same for all")]


def _alike(
    ranks: Sequence[Rank], check: str, of: Callable[[Rank], Mapping[str, str]], level: Level, mend: str
) -> list[Finding]:
    findings = []
    for name in sorted(set(chain.from_iterable(of(rank) for rank in ranks))):
        places: dict[str, list[str]] = {}
        for rank in first_of_hosts(ranks):
            places.setdefault(of(rank).get(name, "none"), []).append(rank.member.place)
        if len(places) > 1:
            found = "; ".join(f"{name} {value} on {', '.join(where)}" for value, where in places.items())
            findings.append(Finding(level, check, found, "", mend))
    same = ", ".join(f"{name} {value}" for name, value in sorted(of(ranks[0]).items()))
    return findings or [Finding("ok", check, same or "none")]


def _of_no_interface(rank: Rank) -> Mapping[str, str]:
    """Return a rank's settings but for interfaces, which may have other names on other hosts."""
    return {name: value for name, value in rank.settings.items() if not name.endswith("_SOCKET_IFNAME")}


def _names(ranks: Sequence[Rank]) -> list[Finding]:
    """Find hosts whose gloo would be deaf to the others if it were not told where to listen, as trainings tell it."""
    return [
        _name(rank)
        for rank in first_of_hosts(ranks)
        if rank.backend == "gloo"
        and "GLOO_SOCKET_IFNAME" not in rank.settings
        and is_loopback(rank.gloo_address)
    ]


def _name(rank: Rank) -> Finding:
    found = f"its name stands for {rank.gloo_address}, where gloo would listen and no other host come"
    if rank.interface:
        told = f"{found}: trainings let it listen on {rank.interface}"
        return Finding("ok", "address", told, rank.member.place)
    mend = f"set GLOO_SOCKET_IFNAME there, or give its name {rank.member.address} in /etc/hosts"
    return Finding("failure", "address", found, rank.member.place, mend)


def _links(links: Links) -> str:
    slowest = min(links.pairs.values())
    return (
        f"{speed(links.bandwidth)} over the whole group, {speed(slowest)} between the slowest two hosts, "
        f"{duration(links.latency)} for the smallest message"
    )


def _interfaces(ranks: Sequence[Rank], carried: Sequence[Carried], links: Links) -> list[Finding]:
    """Compare what interfaces carried with what they are said to carry, host by host."""
    findings = []
    for rank in first_of_hosts(ranks):
        seen, where = carried[rank.member.rank], rank.member.place
        fastest = max(bandwidth for pair, bandwidth in links.pairs.items() if rank.member.rank in pair)
        said = f"{seen.interface} carried {speed(fastest)}"
        if seen.interface is None:
            findings.append(Finding("ok", "interface", "none sent much: not by sockets", where))
        elif rank.interface not in (None, seen.interface):
            mend = "name the faster one in GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME"
            found = f"{said}, while the host is reached over {rank.interface}"
            findings.append(Finding("warning", "interface", found, where, mend))
        elif seen.claimed_mbit and fastest < EXPECTED_SHARE * seen.claimed_mbit * 1e6 / 8:
            mend = "a virtual link claims anything; with a real one look at cable, switch and busy cores"
            found = f"{said} of the {speed(seen.claimed_mbit * 1e6 / 8)} that it claims"
            findings.append(Finding("warning", "interface", found, where, mend))
        else:
            findings.append(Finding("ok", "interface", said, where))
    return findings


def _slow_pairs(ranks: Sequence[Rank], links: Links) -> list[Finding]:
    """Find pairs of hosts that are far slower than most, by which a slow host is known."""
    usual = statistics.median(links.pairs.values())
    return [
        Finding(
            "warning",
            "pair",
            f"{speed(bandwidth)}, where most pairs have {speed(usual)}",
            f"{ranks[one].member.place}, {ranks[other].member.place}",
            "every step waits for the slowest: look at the host that such pairs have in common",
        )
        for (one, other), bandwidth in sorted(links.pairs.items())
        if bandwidth < SLOW_PAIR * usual
    ]
