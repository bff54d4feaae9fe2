"""Which way NCCL really takes between hosts, read from its log.

NCCL falls back from RDMA to sockets without a word that a user would see. With ``NCCL_DEBUG=INFO`` and
``NCCL_DEBUG_SUBSYS=INIT,NET`` its log says what it found and what each channel uses: lines of NCCL 2.4 to 2.28 are
understood. Setting ``NCCL_NET=IB`` makes it fail where it would fall back.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_USING_IB = re.compile(r"NET/IB ?: Using (?P<devices>.*?)(?:;? ?OOB (?P<interface>[^:\s]+):|$)")
_DEVICE = re.compile(r"\[\d+\](?P<name>[^:\s]+):(?P<port>\d+)/(?P<link>RoCE|IB)")
_NETWORK = re.compile(r"Using network (?P<name>\S+)")
_VIA = re.compile(r"\[(?:send|receive)\] via NET/(?P<network>[^/\s]+)/\d+(?:\(\d+\))?(?P<direct>/GDRDMA)?")
_SOCKET = re.compile(r"NET/Socket ?: Using \[\d+\]")
_NO_DEVICE = re.compile(r"NET/IB ?: No device found")


@dataclass(frozen=True, slots=True)
class Device:
    """A network card's port as NCCL names it; ``link`` is ``RoCE`` or ``IB`` (InfiniBand)."""

    name: str
    port: int
    link: str


@dataclass(frozen=True)
class Transport:
    """What a log says of the way between hosts.

    Attributes:
        network: that was chosen: ``IB`` for InfiniBand and RoCE alike, ``Socket``, or a plug-in's name; None where
            the log does not say, as with ranks of one host alone.
        devices: that can do RDMA.
        interface: over which ranks find each other.
        channels: ends of channels between hosts, by network and whether GPUs are read directly (GPUDirect RDMA).
        no_device: whether NCCL looked for a device for RDMA and found none.
    """

    network: str | None
    devices: tuple[Device, ...]
    interface: str | None
    channels: Counter[tuple[str, bool]]
    no_device: bool

    @property
    def is_rdma(self) -> bool:
        """Whether RDMA is used: all channels say so, or where none is told the chosen network."""
        used: set[str | None] = {network for network, _ in self.channels} or {self.network}
        return all(network is not None and network.startswith("IB") for network in used)

    @property
    def is_direct(self) -> bool:
        """Whether network cards read and write the GPUs' memory themselves on every channel that is told."""
        return bool(self.channels) and all(direct for _, direct in self.channels)

    def __str__(self) -> str:
        """Say it in a line, with what to look at where it is not the best."""
        if self.network is None and not self.channels:
            return "the log names no network: ranks of one host, or NCCL_DEBUG is not INFO"
        if not self.is_rdma:
            name = self.network or next(network for network, _ in self.channels)
            missing = "; NCCL found no device for RDMA" if self.no_device else ""
            return f"no RDMA: NCCL uses {name}{missing}. NCCL_NET=IB makes it fail instead of falling back"
        links = sorted({device.link for device in self.devices}) or ["IB or RoCE"]
        named = ", ".join(f"{d.name}:{d.port}" for d in self.devices) or "unnamed devices"
        if self.is_direct:
            return f"RDMA by {'/'.join(links)} on {named}, with GPUDirect"
        lacking = (
            "" if not self.channels else ", without GPUDirect: see nvidia_peermem or dma-buf, and PCIe ACS"
        )
        return f"RDMA by {'/'.join(links)} on {named}{lacking}"


def read_transport(lines: Iterable[str]) -> Transport:
    """Read the log of one rank or of several, of NCCL's or anybody's lines."""
    network, interface = None, None
    no_device = sockets = False
    devices: dict[Device, None] = {}
    channels: Counter[tuple[str, bool]] = Counter()
    for line in lines:
        if found := _USING_IB.search(line):
            interface = found["interface"] or interface
            for device in _DEVICE.finditer(found["devices"]):
                devices[Device(device["name"], int(device["port"]), device["link"])] = None
        elif found := _NETWORK.search(line):
            network = found["name"]
        elif found := _VIA.search(line):
            channels[found["network"], bool(found["direct"])] += 1
        elif _NO_DEVICE.search(line):
            no_device = True
        elif _SOCKET.search(line):
            sockets = True
    if network is None and sockets:  # before NCCL 2.5 the choice has no line of its own
        network = "Socket"
    return Transport(network, tuple(devices), interface, channels, no_device)
