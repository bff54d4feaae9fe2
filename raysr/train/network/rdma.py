"""What this host has for RDMA, read where the kernel shows it; tells what is missing before NCCL does without.

Files are those of the kernel's ``/sys/class/infiniband`` (Documentation/ABI/stable/sysfs-class-infiniband).
"""

import resource
from dataclasses import dataclass
from pathlib import Path

_IPV4 = "0000:0000:0000:0000:0000:ffff:"
_NO_GID = ":".join(["0000"] * 8)


@dataclass(frozen=True)
class Port:
    """A port of a card that can do RDMA.

    Attributes:
        device, number: as in NCCL_IB_HCA, ``mlx5_0:1``.
        active: whether its link is up.
        link: ``InfiniBand``, or ``Ethernet`` for RoCE.
        gbit: rate of the link, in Gbit/s.
        v2_gids: indices of its addresses for RoCE v2 over IPv4; what NCCL_IB_GID_INDEX may be.
        interface: its Ethernet interface; None for InfiniBand.
        mtu: of that interface, in bytes.
    """

    device: str
    number: int
    active: bool
    link: str
    gbit: float
    v2_gids: tuple[int, ...]
    interface: str | None
    mtu: int | None

    @property
    def name(self) -> str:
        return f"{self.device}:{self.number}"

    def problems(self) -> list[str]:
        """Return what keeps it from being used well, each with what would be right."""
        if not self.active:
            return [f"{self.name}: its link is down; see `ibv_devinfo` and the cable"]
        found = []
        if self.link == "Ethernet" and not self.v2_gids:
            found.append(
                f"{self.name}: it has no RoCE v2 address over IPv4; give {self.interface or 'its interface'} one, "
                "for RoCE v1 is not routed"
            )
        if self.mtu is not None and self.mtu < 4200:
            found.append(
                f"{self.name}: the MTU of {self.interface} is {self.mtu}, which makes RoCE send 1024 bytes a packet; "
                "9000 on every host and switch lets it send 4096"
            )
        return found


@dataclass(frozen=True)
class Host:
    """This host's ports, and what RDMA needs of its kernel.

    Attributes:
        ports: empty where no card can do RDMA.
        peer_memory: whether cards may reach GPU memory by ``nvidia_peermem``; a kernel with dma-buf does without.
        locked_bytes: how much memory a process may lock; None is any amount.
    """

    ports: tuple[Port, ...]
    peer_memory: bool
    locked_bytes: int | None

    def problems(self) -> list[str]:
        """Return what is missing, each with what would be right; nothing where there is no such card."""
        if not self.ports:
            return []
        found = [problem for port in self.ports for problem in port.problems()]
        if not any(port.active for port in self.ports):
            found.append("no port for RDMA has a link: NCCL will use sockets")
        if self.locked_bytes is not None:
            found.append(
                f"a process may lock {self.locked_bytes / 2**20:.0f} MiB: RDMA registers its buffers; set "
                "`ulimit -l unlimited`, in a container the capability IPC_LOCK"
            )
        if not self.peer_memory:
            found.append(
                "nvidia_peermem is not loaded: GPUDirect then needs a kernel and driver with dma-buf"
            )
        return found


def read_host(sys: Path = Path("/sys")) -> Host:
    """Look at this host, below ``sys``."""
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    ports = sorted(sys.glob("class/infiniband/*/ports/*"))
    return Host(
        tuple(_port(sys, port) for port in ports),
        peer_memory=(sys / "module" / "nvidia_peermem").exists(),
        locked_bytes=None if limit == resource.RLIM_INFINITY else limit,
    )


def _port(sys: Path, port: Path) -> Port:
    gids = {int(file.name): _read(file) for file in (port / "gids").glob("*")}
    kinds = {int(file.name): _read(file) for file in (port / "gid_attrs" / "types").glob("*")}
    used = sorted(index for index, gid in gids.items() if gid not in ("", _NO_GID))
    interfaces = [_read(port / "gid_attrs" / "ndevs" / str(index)) for index in used]
    interface = next((name for name in interfaces if name), None)
    link = _read(port / "link_layer")
    mtu = _read(sys / "class" / "net" / interface / "mtu") if interface and link == "Ethernet" else ""
    return Port(
        device=port.parent.parent.name,
        number=int(port.name),
        active=_read(port / "state").endswith("ACTIVE"),
        link=link,
        gbit=float((_read(port / "rate").split() or ["0"])[0]),
        v2_gids=tuple(i for i in used if kinds.get(i) == "RoCE v2" and gids[i].startswith(_IPV4)),
        interface=interface if link == "Ethernet" else None,
        mtu=int(mtu) if mtu else None,
    )


def _read(file: Path) -> str:
    """Return what a file of the kernel's says; nothing where it may not be read, as types of unused addresses."""
    try:
        return file.read_text().strip()
    except OSError:  # EINVAL, of a place in the table that holds no address
        return ""
