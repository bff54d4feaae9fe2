"""What the network's pre-flight found: for people a table, for programs plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from raysr.train.network.links import Links
from raysr.train.network.nccl_log import Transport
from raysr.train.network.rdma import Host
from raysr.train.network.recommend import Recommendation
from raysr.train.network.roll import Member

Level = Literal["ok", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: a failure keeps training from working, or from working as asked; a warning costs speed.

    Attributes:
        check: what was looked at.
        where: hosts or ranks that it concerns; empty for all.
        found: what is.
        mend: what would be right, or how to get there.
    """

    level: Level
    check: str
    found: str
    where: str = ""
    mend: str = ""


@dataclass(frozen=True)
class Rank:
    """What a rank knows of itself before anything is sent.

    Attributes:
        interface: that has the member's address.
        gloo_address: where gloo listens by itself.
        backend: of the group.
        versions: of what has to be the same everywhere.
        settings: environment variables of NCCL and gloo.
        rdma: what its kernel shows.
    """

    member: Member
    interface: str | None
    gloo_address: str
    backend: str
    versions: Mapping[str, str]
    settings: Mapping[str, str]
    rdma: Host


@dataclass(frozen=True)
class Carried:
    """What a rank saw while links were measured.

    Attributes:
        interface: that sent most, by the kernel's counters; None where none sent much, as with RDMA.
        claimed_mbit: what that interface's driver says of its speed.
        transport: read from NCCL's log; None without one.
    """

    interface: str | None
    claimed_mbit: int | None
    transport: Transport | None


@dataclass(frozen=True)
class Report:
    """The same on all ranks."""

    ranks: tuple[Rank, ...]
    carried: tuple[Carried, ...]
    links: Links
    findings: tuple[Finding, ...]
    recommendation: Recommendation | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(finding.level != "failure" for finding in self.findings)

    def dump(self) -> dict[str, Any]:
        """Return plain data, as JSON holds it; speeds in bytes a second, None where there is no link."""
        several = len(self.ranks) > 1
        return {
            "passed": self.passed,
            "ranks": [
                {**asdict(rank.member), "backend": rank.backend, "interface": carried.interface}
                | {"claimed_mbit": carried.claimed_mbit, "versions": dict(rank.versions)}
                | {"transport": str(carried.transport) if carried.transport else None}
                for rank, carried in zip(self.ranks, self.carried, strict=True)
            ],
            "latency": self.links.latency,
            "bandwidth": self.links.bandwidth if several else None,
            "pairs": [
                {"ranks": list(pair), "bandwidth": speed} for pair, speed in sorted(self.links.pairs.items())
            ],
            "findings": [asdict(finding) for finding in self.findings],
            "recommendation": self.recommendation.dump() if self.recommendation else None,
        }

    def __str__(self) -> str:
        """Say it in lines: each finding, its mend below it, and the recommendation."""
        lines = []
        for finding in self.findings:
            where = f", {finding.where}" if finding.where else ""
            lines.append(f"{finding.level:8} {finding.check}{where}: {finding.found}")
            if finding.mend:
                lines.append(f"{'':9}{finding.mend}")
        return "\n".join([*lines, *([str(self.recommendation)] if self.recommendation else [])])


def first_of_hosts(ranks: Sequence[Rank]) -> list[Rank]:
    """Return the first rank of every host; hosts are told apart by their addresses."""
    found: dict[str, Rank] = {}
    for rank in ranks:
        found.setdefault(rank.member.address, rank)
    return list(found.values())
