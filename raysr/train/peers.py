"""What ranks ask and tell each other beside their process group: each one listens on a port of its own."""

import json
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, TracebackType

import torch.distributed as dist

from raysr.train.network.gather import address_in_group, gather_objects

MOST_AT_ONCE = 32
LONGEST = 1 << 16  # bytes of a message
QUESTION_S = 1.0
GONE = "has ended: it was killed, or its host ran out of memory"
SILENT = "does not answer: it is stopped, or its host or network is down"


@dataclass(frozen=True)
class Stand:
    """Where a rank is.

    Attributes:
        step: in which it is, or was last.
        inside: whether it is in that step, or in something else that all do together.
        seconds: since it was last seen to move.
        place: the line of code.
        done: how much it has begun together with the others.
        what: it is in, or was last, beside steps.
    """

    step: int
    inside: bool
    seconds: float
    place: str
    done: int = 0
    what: str = ""

    @property
    def when(self) -> str:
        where = f"{'in' if self.inside else 'after'} {self.what or f'step {self.step}'}"
        return f"{where} after step {self.step}" if self.what else where

    @property
    def progress(self) -> tuple[int, int, bool]:
        """Grows from step to step, and after each."""
        return self.step, self.done, not self.inside


class Peers:
    """The ranks of the default process group; made by all of them together, and closed by each.

    Args:
        stand: says where this rank is; called in another thread.
        told: called, in another thread, with what a rank has told.
        patience: seconds that a rank has to answer.
    """

    def __init__(self, stand: Callable[[], Stand], told: Callable[[str], object], patience: float) -> None:
        self._stand, self._told, self._patience = stand, told, patience
        self._listener = _listen()
        port, token = self._listener.getsockname()[1], secrets.token_hex(16)
        known = gather_objects((socket.gethostname(), address_in_group(), port, token))
        self.rank = dist.get_rank()
        self._hosts = [host for host, *_ in known]
        self._places = [(address, port) for _, address, port, _ in known]
        self._token = known[0][-1]
        self._thread = threading.Thread(target=self._serve, name="peers", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """What others call this rank."""
        return self._name(self.rank)

    def missing(self, here: Stand, since: float) -> str | None:
        """Say which ranks have ended or do not answer, or else which stand :func:`apart`, for ``since`` seconds now.

        Return None where there are none.
        """
        answers = self._ask_all({})
        stands = {self.rank: here} | {r: answer for r, answer in answers.items() if isinstance(answer, Stand)}
        said = {rank: answer for rank, answer in answers.items() if isinstance(answer, str)}
        if not said:
            absent = {rank: stands[rank] for rank in sorted(apart(stands))}
            if all(stand.seconds >= since for stand in absent.values()):
                said = {
                    r: f"has been in {s.place}, {s.when}, for {s.seconds:.0f} s" for r, s in absent.items()
                }
        if not said:
            return None
        parts = [f"{self._name(rank)} {what}" for rank, what in said.items()]
        waiting = sorted(r for r, s in stands.items() if r not in said and s.progress == here.progress)
        if waiting:
            parts.append(f"{_ranks(waiting)} {'waits' if len(waiting) == 1 else 'wait'} {here.when}")
        return "; ".join(parts)

    def tell(self, verdict: str) -> None:
        """Tell all other ranks why this training ends."""
        self._ask_all({"verdict": verdict})

    def close(self) -> None:
        """Stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _ask_all(self, message: dict[str, str]) -> dict[int, Stand | str]:
        others = [rank for rank in range(len(self._places)) if rank != self.rank]
        with ThreadPoolExecutor(min(MOST_AT_ONCE, len(others))) as executor:
            return dict(zip(others, executor.map(lambda rank: self._ask(rank, message), others), strict=True))

    def _ask(self, rank: int, message: dict[str, str]) -> Stand | str:
        """Return where a rank stands, or what is the matter with it."""
        try:
            with socket.create_connection(self._places[rank], timeout=self._patience) as connection:
                connection.sendall(json.dumps({"token": self._token, **message}).encode() + b"\n")
                answer = connection.makefile().readline(LONGEST)
            return Stand(**json.loads(answer)) if answer else GONE
        except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
            return GONE
        except OSError:
            return SILENT

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            with connection:
                try:
                    self._answer(connection)
                except (OSError, ValueError, RecursionError):
                    continue  # who asked is gone, or is none of ours

    def _answer(self, connection: socket.socket) -> None:
        message = json.loads(_line_of(connection, QUESTION_S))
        if not isinstance(message, dict) or message.get("token") != self._token:
            return
        connection.sendall(json.dumps(asdict(self._stand())).encode() + b"\n")
        if "verdict" in message:
            self._told(message["verdict"])

    def _name(self, rank: int) -> str:
        return f"rank {rank} on host {self._hosts[rank]}"


def apart(stands: Mapping[int, Stand]) -> set[int]:
    """Return the ranks for which the others wait: those that are behind, or where none is those in a line of their own.

    All that are not with the largest group, that is, and all ranks where there is none: nobody can tell who waits.
    """
    last = min(stand.progress for stand in stands.values())
    behind = {rank for rank, stand in stands.items() if stand.progress == last}
    if len(behind) < len(stands):
        return behind
    places = Counter(stand.place for stand in stands.values())
    (most, size), *others = places.most_common(2)
    together = len(places) == 1 or size > others[0][1]
    return {rank for rank, stand in stands.items() if not (together and stand.place == most)}


def of_frame(frame: FrameType | None) -> str:
    """Return the line that a thread is in: that of raysr's code from which all others were called, if any."""
    lines = []
    while frame is not None:
        lines.append((frame, frame.f_lineno))
        frame = frame.f_back
    return _line(lines)


def of_traceback(trace: TracebackType | None) -> str:
    """Return the line that an error came from, as :func:`of_frame` has it."""
    lines = []
    while trace is not None:
        lines.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    return _line(lines[::-1])


def _line(lines: Sequence[tuple[FrameType, int]]) -> str:
    """Choose from lines, the innermost first."""
    own = __name__.partition(".")[0]
    ours = [line for line in lines if line[0].f_globals.get("__name__", "").partition(".")[0] == own]
    if not lines:
        return "no code"
    frame, number = (ours or lines)[0]
    return f"{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}:{number})"


def _line_of(connection: socket.socket, seconds: float) -> bytes:
    """Return a line that has to be there within so many seconds; whoever asks slowly keeps the others waiting."""
    until, line = time.monotonic() + seconds, b""
    while not line.endswith(b"\n") and len(line) < LONGEST:
        connection.settimeout(max(0.001, until - time.monotonic()))
        part = connection.recv(LONGEST)
        if not part:
            break
        line += part
    return line


def _listen() -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True)
    return socket.create_server(("", 0), backlog=1024)


def _ranks(ranks: Sequence[int]) -> str:
    """Return ``rank 0``, ``ranks 0 and 1``, ``ranks 0, 1 and 5``."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"
