"""The roll call: ranks find each other in a store before they form a group, so that errors name who is missing.

A process group that lacks a rank, or two hosts that do not reach each other, end in a time-out that names nobody.
"""

import base64
import contextlib
import hmac
import os
import pickle
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist

from raysr.errors import RunError
from raysr.train.network.gather import own_address
from raysr.train.network.store import CONNECT_S, open_store

T = TypeVar("T")
SIGNATURE = 32  # bytes of SHA-256
GRACE_S = 3.0  # the store lives with rank 0, which therefore leaves last


@dataclass(frozen=True, slots=True)
class Member:
    """A rank and where it is.

    Attributes:
        host: its host's name, which need not be unique.
        address: at which other hosts reach it; tells hosts apart.
        door: a port on which it listens; 0 for none.
    """

    rank: int
    host: str
    address: str
    door: int = 0

    @property
    def place(self) -> str:
        return f"{self.host} ({self.address})"

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.place}"


class Roll:
    """All ranks of a group to be, once every one of them has come.

    Args:
        store: in which they meet.
        rank: this one.
        ranks: how many there are.
        timeout: seconds that each waits for the others.
        secret: with which they sign what they say: whoever reaches the store can write into it.
    """

    def __init__(self, store: dist.Store, rank: int, ranks: int, timeout: float, secret: bytes = b"") -> None:
        self.store, self.rank, self.timeout = store, rank, timeout
        self._secret = secret
        self.members: list[Member] = []
        self._names = [f"rank {number}" for number in range(ranks)]
        self._calls = 0

    def gather(self, value: T) -> list[T]:
        """Return every rank's value; raise RunError that names those who give none in time."""
        self._calls += 1
        keys = [f"{self._calls}/{rank}" for rank in range(len(self._names))]
        patience = self.timeout + (0 if self.rank else GRACE_S)
        try:
            said = pickle.dumps(value)
            signed = self._signature(keys[self.rank], said) + said
            self.store.set(keys[self.rank], base64.b64encode(signed).decode())
            self.store.wait(keys, timedelta(seconds=patience))
            heard = [base64.b64decode(self.store.get(key)) for key in keys]
        except RuntimeError:
            raise RunError(self._absent(keys)) from None
        for name, key, one in zip(self._names, keys, heard, strict=True):
            if not hmac.compare_digest(one[:SIGNATURE], self._signature(key, one[SIGNATURE:])):
                raise RunError(
                    f"what {name} is said to have said is not signed by it: who else is on this network?"
                )
        return [pickle.loads(one[SIGNATURE:]) for one in heard]

    def _signature(self, key: str, said: bytes) -> bytes:
        return hmac.digest(self._secret, key.encode() + said, "sha256")

    def settle(self, towards: str) -> socket.socket:
        """Learn where everybody is; return the socket on which this rank listens for the others."""
        address = own_address(towards, self.gather)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        door = socket.create_server((address, 0), family=family, backlog=4 * len(self._names))
        own = Member(self.rank, socket.gethostname(), address, door.getsockname()[1])
        self.members = self.gather(own)
        self._names = [str(member) for member in self.members]
        return door

    def unreachable(self) -> dict[int, str]:
        """Return the other ranks that this one cannot connect to, and why."""
        others = [member for member in self.members if member.rank != self.rank]
        with ThreadPoolExecutor(16) as executor:
            reasons = executor.map(_knock, others)
        return {member.rank: reason for member, reason in zip(others, reasons, strict=True) if reason}

    def explain(self, rank: int, lost: dict[int, str]) -> str:
        """Say in a line whom a rank does not reach."""
        them = ", ".join(f"{self._names[other]} ({reason})" for other, reason in lost.items())
        return f"{self._names[rank]} does not reach {them}"

    def leave(self) -> None:
        """Let go of the store; rank 0 when all others have."""
        with contextlib.suppress(RuntimeError):
            self.store.set(f"left/{self.rank}", "")
            if self.rank == 0:
                everyone = [f"left/{rank}" for rank in range(len(self._names))]
                self.store.wait(everyone, timedelta(seconds=GRACE_S))

    def _absent(self, keys: list[str]) -> str:
        try:
            here = [rank for rank, key in enumerate(keys) if self.store.check([key])]
        except RuntimeError:
            return f"{self._names[0]} has gone, or cannot be reached any more from {socket.gethostname()}"
        absent = ", ".join(name for rank, name in enumerate(self._names) if rank not in here)
        present = ", ".join(self._names[rank] for rank in here)
        if self.members:
            return f"{absent} did not answer within {self.timeout:g} s; {present} did. Look at the log of who is silent"
        return (
            f"{absent} did not come within {self.timeout:g} s; here are {present}. "
            "Look at its log: it may not have been started, or not reach this host"
        )


@contextlib.contextmanager
def called(
    rank: int, ranks: int, address: str, port: int, timeout: float, secret: bytes = b""
) -> Iterator[Roll]:
    """Meet all other ranks by a store at ``address:port``, which rank 0 or torchrun's agent keeps.

    Raises:
        RunError: rank 0 does not answer, a rank does not come in time, or hosts do not reach each other.
    """
    prefix = f"raysr-preflight/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    store = dist.PrefixStore(prefix, open_store(rank, address, port, timeout))
    roll = Roll(store, rank, ranks, timeout, secret)
    try:
        with roll.settle(address):
            _check_ways(roll)
            yield roll
    finally:
        roll.leave()


def _check_ways(roll: Roll) -> None:
    for rank, lost in enumerate(roll.gather(roll.unreachable())):
        if lost:
            raise RunError(
                f"{roll.explain(rank, lost)}. Ranks choose their ports: let hosts reach all ports of each other"
            )


def _knock(member: Member) -> str | None:
    """Return why nobody opens, if so."""
    try:
        socket.create_connection((member.address, member.door), timeout=CONNECT_S).close()
    except OSError as error:
        return error.strerror or str(error)
    return None
