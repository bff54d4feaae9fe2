"""Several hosts on one machine: namespaces on a switch, whose links are as slow as asked and can break.

A host has a network, host name, processes, ``/tmp``, ``/dev/shm``, ``/proc``, ``/sys`` and ``/etc/hosts`` of its own,
and 10.78.0.N on ``eth0``; nothing is routed outside. The checkout, the interpreter and folders named as shared are
the same on all.

Namespaces have no names here: they live as long as their first process, and that as long as it can read from a pipe
that this process holds. However this process ends, the kernel takes hosts, their processes and links away. Needs
root and the programs of iproute2 and util-linux.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from benchmarks.code import ROOT
from raysr.errors import RunError

PROGRAMS = ("ip", "tc", "unshare", "nsenter")
NETWORK, MOST = "10.78.0", 32
PRIVATE = Path("/tmp")

# cat ignores SIGCHLD, so that the kernel buries the orphans that a host's first process inherits
WAIT = "exec env --ignore-signal=CHLD cat >/dev/null"
SWITCH = f"echo $$; {WAIT}"
# below a /tmp of its own, a host sees the folders that it shares where they were
HOST = f"""
set -e
name=$1 names=$2; shift 2
read -r pid _ </proc/self/stat
mount -t proc proc /proc
mount -t sysfs sysfs /sys
echo "$name" >/proc/sys/kernel/hostname
mount -t tmpfs tmpfs /mnt
count=0
for folder in "$@"; do
  count=$((count + 1)); mkdir /mnt/$count; mount --bind "$folder" /mnt/$count
done
mount -t tmpfs -o mode=1777 tmpfs {PRIVATE}
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
count=0
for folder in "$@"; do
  count=$((count + 1)); mkdir -p "$folder"; mount --move /mnt/$count "$folder"
done
echo "$names" >/mnt/hosts
mount --bind /mnt/hosts /etc/hosts
umount -l /mnt
echo "$pid"
{WAIT}
"""


def missing() -> str | None:
    """Return what this machine lacks for several hosts; None where they can be had."""
    if absent := [program for program in PROGRAMS if not shutil.which(program)]:
        return f"several hosts need {', '.join(absent)}, on Debian in iproute2 and util-linux"
    if subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True).returncode:
        return "several hosts need root, in a container with the capabilities SYS_ADMIN and NET_ADMIN"
    return None


class HostProcess(subprocess.Popen[Any]):
    """A process of a host. Signals go to it, and not to the ``nsenter`` that waits for it outside."""

    def send_signal(self, sig: int) -> None:
        while self.poll() is None:
            if inside := Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
                os.kill(int(inside[0]), sig)
                return
            time.sleep(0.01)


class Hosts:
    """Hosts 1 to N, called ``h1`` and so on, for as long as the block runs.

    Args:
        count: of hosts to begin with.
        mbit: Mbit/s of each host's link, each way; None for as fast as it goes.
        shared: folders that all hosts see where they are here, even below ``/tmp``.

    Raises:
        RunError: this machine cannot have them; on entering the block.
    """

    def __init__(self, count: int, mbit: float | None = None, shared: Sequence[Path] = ()) -> None:
        self._count, self._mbit = count, mbit
        kept = [ROOT, Path(sys.prefix), *(folder.resolve() for folder in shared)]
        self._kept = [folder for folder in kept if PRIVATE in folder.parents]
        self._hosts: dict[int, _Namespaces] = {}
        self._added = 0

    def __enter__(self) -> Self:
        if reason := missing():
            raise RunError(reason)
        self._switch = _Namespaces(["--net"], SWITCH)
        try:
            self._switch.run("ip", "link", "add", "br0", "type", "bridge")
            self._switch.run("ip", "link", "set", "br0", "up")
            for _ in range(self._count):
                self.add(self._mbit)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for place in (*self._hosts.values(), self._switch):
            place.end()
        self._hosts.clear()

    def add(self, mbit: float | None = None) -> int:
        """Plug in another host, and return its number."""
        self._added += 1
        number = self._added
        kinds = ["--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child"]
        names = "\n".join(["127.0.0.1 localhost", *(f"{address(n)} h{n}" for n in range(1, MOST + 1))])
        host = _Namespaces(kinds, HOST, f"h{number}", names, *map(str, self._kept))
        self._hosts[number] = host
        ends = ["eth0", "netns", str(host.pid)], ["name", f"p{number}", "netns", str(self._switch.pid)]
        _run("ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        self._switch.run("ip", "link", "set", f"p{number}", "master", "br0", "up")
        host.run("ip", "address", "add", f"{address(number)}/24", "dev", "eth0")
        for interface in ("lo", "eth0"):
            host.run("ip", "link", "set", interface, "up")
        self.rate(number, mbit)
        return number

    def run(
        self, host: int, command: Sequence[str | Path], env: Mapping[str, str] | None = None, **options: Any
    ) -> HostProcess:
        """Start a command on a host, in the checkout; ``options`` are those of :class:`subprocess.Popen`."""
        enter = [
            "nsenter",
            f"--target={self._hosts[host].pid}",
            "--net",
            "--uts",
            "--ipc",
            "--mount",
            "--pid",
        ]
        environment = {**os.environ, "HOME": str(PRIVATE), **(env or {})}
        return HostProcess([*enter, "env", f"--chdir={ROOT}", *map(str, command)], env=environment, **options)

    def rate(self, host: int, mbit: float | None) -> None:
        """Let so many Mbit/s pass through a host's link, each way; None for as many as go."""
        queue = ["pfifo", "limit", "1000"]
        if mbit is not None:
            burst = max(128 << 10, round(mbit * 1e6 / 8 * 0.004))  # two packets of 64 KiB, or 4 ms
            queue = ["tbf", "rate", f"{mbit}mbit", "burst", str(burst), "limit", str(8 * burst)]
        for place, end in ((self._hosts[host], "eth0"), (self._switch, f"p{host}")):
            place.run("tc", "qdisc", "replace", "dev", end, "root", *queue)

    def cut(self, host: int) -> None:
        """Pull a host's cable; the host goes on."""
        self._switch.run("ip", "link", "set", f"p{host}", "down")

    def heal(self, host: int) -> None:
        """Plug the cable in again."""
        self._switch.run("ip", "link", "set", f"p{host}", "up")

    def kill(self, host: int) -> None:
        """Switch a host off: all its processes are gone at once, and so is its link."""
        self._hosts.pop(host).end()

    def sent(self, host: int) -> int:
        """Return the bytes that a host has sent through its link, headers included."""
        lines = Path(f"/proc/{self._hosts[host].pid}/net/dev").read_text().splitlines()
        fields = next(line.partition(":")[2].split() for line in lines if line.strip().startswith("eth0:"))
        return int(fields[8])


def address(host: int) -> str:
    """Return a host's address."""
    return f"{NETWORK}.{host}"


class _Namespaces:
    """What ``unshare`` makes: there until it is ended, or this process is."""

    def __init__(self, kinds: Sequence[str], script: str, *arguments: str) -> None:
        private = ["--propagation", "private"] if "--mount" in kinds else []
        self._process = subprocess.Popen(
            ["unshare", *kinds, *private, "sh", "-c", script, "sh", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        told = self._process.stdout.readline()
        if not told:
            raise RunError(f"no host can be made here: {self._process.communicate()[1].strip()}")
        self.pid = int(told)

    def run(self, *command: str) -> None:
        """Carry out a command of this machine's in the network of these."""
        _run("nsenter", f"--target={self.pid}", "--net", *command)

    def end(self) -> None:
        """Kill the first process, and with it all others; return when they are gone."""
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self._process.communicate()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RunError(f"{' '.join(command)}: {done.stderr.strip()}")
