"""This host's addresses and interfaces, as the kernel tells them."""

import array
import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
from pathlib import Path

SIOCGIFCONF = 0x8912  # linux/sockios.h
ENTRY = struct.Struct(
    "16s4x4s16x"
)  # linux/if.h, struct ifreq: a name, and a socket address whose bytes 4 to 8 are IPv4


def source_towards(host: str) -> str:
    """Return the address of this host's that another one sees it by; nothing is sent.

    Raises:
        OSError: the other's name is unknown here, or no way leads there.
    """
    family, kind, _, _, there = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(there)
        return str(probe.getsockname()[0])


def is_loopback(address: str) -> bool:
    """Say whether an address leads nowhere but to the host itself, as Debian's 127.0.1.1 for a host's own name."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def interface_of(address: str) -> str | None:
    """Return the interface that has an address, IPv4 or IPv6."""
    return _interfaces().get(address.partition("%")[0])


def gloo_address() -> str:
    """Return where gloo listens if GLOO_SOCKET_IFNAME names no interface (torch, ProcessGroupGloo.cpp).

    The first address of the host's own name that can be bound to; loopback where there is none.
    """
    with contextlib.suppress(socket.gaierror):
        for family, kind, _, _, place in socket.getaddrinfo(socket.gethostname(), 0, type=socket.SOCK_STREAM):
            with socket.socket(family, kind) as probe, contextlib.suppress(OSError):
                probe.bind(place)
                return str(place[0])
    return "127.0.0.1"


def where_gloo_is_heard(address: str) -> dict[str, str]:
    """Return the environment variable without which no other host would reach this one's gloo, if it lacks that.

    Args:
        address: of this host, as the others see it.
    """
    is_deaf = is_loopback(gloo_address()) and not is_loopback(address)
    interface = interface_of(address)
    if not is_deaf or interface is None or "GLOO_SOCKET_IFNAME" in os.environ:
        return {}
    return {"GLOO_SOCKET_IFNAME": interface}


def claimed_mbit(interface: str) -> int | None:
    """Return the Mbit/s that an interface's driver claims; virtual ones claim nothing, or what they like."""
    try:
        claimed = int(Path(f"/sys/class/net/{interface}/speed").read_text())
    except (OSError, ValueError):  # EINVAL, of an interface without the notion of speed
        return None
    return claimed if claimed > 0 else None


def sent_bytes() -> dict[str, int]:
    """Return how many bytes each interface has sent since it came up."""
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    return {line.partition(":")[0].strip(): int(line.partition(":")[2].split()[8]) for line in lines}


def _interfaces() -> dict[str, str]:
    """Return the interface of every address."""
    room = array.array("B", bytes(ENTRY.size * 512))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        asked = struct.pack("iP", len(room), room.buffer_info()[0])
        size, _ = struct.unpack("iP", fcntl.ioctl(probe, SIOCGIFCONF, asked))
    found = {}
    for name, number in ENTRY.iter_unpack(room.tobytes()[:size]):
        found[socket.inet_ntoa(number)] = name.rstrip(b"\0").decode().partition(":")[0]
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            number, *_, interface = line.split()
            found[str(ipaddress.ip_address(bytes.fromhex(number)))] = interface
    return found
