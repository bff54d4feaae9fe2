"""Ports of this machine: whether one can be listened on, and which one is free."""

import socket

from raysr.errors import RunError


def check_port(host: str, port: int, mend: str) -> None:
    """Raise RunError, which ends with ``mend``, when nobody can listen on ``host:port``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise RunError(f"cannot listen on {host}:{port}: {reason}; {mend}") from None


def free_port(preferred: int) -> int:
    """Return the preferred port where it is free, or any that is."""
    for candidate in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise RunError("no port of this machine is free")
