"""Memory that this process takes of a device, and what is left of it."""

import ctypes
from pathlib import Path
from typing import NamedTuple, Protocol

import torch


class Room(NamedTuple):
    """Bytes of a device's memory: those that this process uses, and those that nobody does."""

    used: int
    free: int


class Gauge(Protocol):
    """Measures what this process takes."""

    def room(self) -> Room: ...

    def reset(self) -> None:
        """Forget the most that was taken so far."""
        ...

    def peak(self) -> int:
        """Return the most bytes taken since."""
        ...


def gauge(device: torch.device) -> Gauge:
    """Return what measures on a CUDA device with its index, or on the host."""
    return _Cuda(device) if device.type == "cuda" else _Host()


class _Host:
    """Resident memory, as the kernel counts it."""

    def room(self) -> Room:
        return Room(_fields(Path("/proc/self/status"))["VmRSS"], available())

    def reset(self) -> None:
        ctypes.CDLL(None).malloc_trim(0)  # what is freed goes back to the kernel, as CUDA's cache below
        Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> int:
        return _fields(Path("/proc/self/status"))["VmHWM"]


class _Cuda:
    """What torch's allocator has reserved; contexts and other processes have what is neither that nor free."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def room(self) -> Room:
        free, _ = torch.cuda.mem_get_info(self._device)
        return Room(torch.cuda.memory_reserved(self._device), free)

    def reset(self) -> None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)

    def peak(self) -> int:
        return torch.cuda.max_memory_reserved(self._device)


def available(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process could still take, of the host's and of its control groups'.

    Files are those of proc(5), and of control groups of version 2 (Documentation/admin-guide/cgroup-v2.rst), below
    ``root``.
    """
    free = _fields(root / "proc/meminfo")["MemAvailable"]
    memberships = (root / "proc/self/cgroup").read_text().splitlines()
    group = next((line.removeprefix("0::/") for line in memberships if line.startswith("0::")), "")
    groups = root / "sys/fs/cgroup"
    for folder in (groups / group, *(groups / group).parents):
        try:
            most = (folder / "memory.max").read_text().strip()
            used = int((folder / "memory.current").read_text())
            kinds = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except OSError:
            continue  # the topmost group has no limit, and a container does not see those above its own
        if most != "max":
            free = min(free, int(most) - used + int(kinds["inactive_file"]))  # what is only cached makes way
    return max(0, free)


def _fields(file: Path) -> dict[str, int]:
    """Return the sizes that a file of proc(5) gives in kB, in bytes."""
    lines = (line.split() for line in file.read_text().splitlines())
    return {
        words[0].rstrip(":"): int(words[1]) << 10 for words in lines if len(words) == 3 and words[2] == "kB"
    }
