"""The store in which ranks meet: kept by rank 0, or by torchrun's agent, and joined by each rank whenever it comes."""

import contextlib
import os
import socket
import time
from datetime import timedelta

import torch.distributed as dist

from raysr.errors import RunError

CONNECT_S = 5.0


def open_store(rank: int, address: str, port: int, timeout: float) -> dist.Store:
    """Return the store at ``address:port``; it does not wait for the other ranks, as torch's own way does.

    Raises:
        RunError: nobody keeps it there within ``timeout`` seconds, or this rank cannot.
    """
    kept_by_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    keeps = rank == 0 and not kept_by_agent
    if not keeps:
        _await(rank, address, port, timeout)
    try:
        return dist.TCPStore(
            address,
            port,
            is_master=keeps,
            timeout=timedelta(seconds=timeout),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"rank {rank} has no store at {address}:{port}: {reason}") from None


def _await(rank: int, address: str, port: int, timeout: float) -> None:
    """Wait until somebody listens, or raise RunError."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((address, port), timeout=CONNECT_S).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RunError(
                    f"rank {rank} on {socket.gethostname()} found no rank 0 at {_resolved(address)}, port {port}, "
                    f"within {timeout:g} s: {error.strerror or error}. Is it started, is that its address, is the "
                    "port open?"
                ) from None
        time.sleep(0.2)


def _resolved(address: str) -> str:
    with contextlib.suppress(OSError):
        number = socket.gethostbyname(address)
        return address if number == address else f"{address} ({number})"
    return address
