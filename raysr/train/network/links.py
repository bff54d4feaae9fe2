"""How fast the way between ranks is, measured with the collectives that training uses.

Called by all ranks of the default process group, whatever its backend; tensors lie on the rank's device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from raysr.train.network.timing import median_seconds, slowest

LATENCY_ROUNDS = 20
ROUNDS = 3
FIRST_BYTES, MOST_BYTES = 1 << 20, 256 << 20


@dataclass(frozen=True)
class Links:
    """The same on all ranks.

    Attributes:
        latency: seconds of an all-reduce of 4 bytes over all ranks.
        bandwidth: bytes a second of each rank's link while all ranks reduce a large tensor: 2 (n - 1) / n of its
            size by the time it takes, "bus bandwidth" in nccl-tests (doc/PERFORMANCE.md).
        pairs: bytes a second, each way at once, between two ranks while the other pairs of its round do the same.
    """

    latency: float
    bandwidth: float
    pairs: dict[tuple[int, int], float]

    @property
    def slowest_pair(self) -> tuple[int, int] | None:
        return min(self.pairs, key=self.pairs.__getitem__) if self.pairs else None


def measure(device: torch.device, one_a_host: Sequence[int] | None = None, seconds: float = 0.3) -> Links:
    """Measure latency, the bandwidth of all together, and that of every pair in rounds of disjoint pairs.

    Args:
        device: of this rank.
        one_a_host: the ranks that are paired, one of every host; None for all.
        seconds: that a message should take, lest latency be measured.
    """
    ranks = dist.get_world_size()
    small = torch.zeros(1, device=device)
    latency = slowest(median_seconds(lambda: dist.all_reduce(small), device, LATENCY_ROUNDS), device)

    def reduce(size: int) -> float:
        tensor = torch.zeros(size // 4, device=device)
        return median_seconds(lambda: dist.all_reduce(tensor), device, ROUNDS)

    size, taken = _large_enough(reduce, device, seconds)
    bandwidth = 2 * (ranks - 1) / ranks * size / taken if ranks > 1 else float("inf")
    paired = list(range(ranks)) if one_a_host is None else list(one_a_host)
    return Links(latency, bandwidth, _pairs(paired, device, seconds))


def tournament(players: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Return rounds of disjoint pairs in which each two players meet once (the circle method; Kirkman 1847)."""
    seats: list[int | None] = list(players) + ([None] if len(players) % 2 else [])
    rounds = []
    for _ in range(len(seats) - 1):
        facing = zip(seats[: len(seats) // 2], reversed(seats[len(seats) // 2 :]), strict=True)
        rounds.append([(min(a, b), max(a, b)) for a, b in facing if a is not None and b is not None])
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return rounds


def _pairs(players: Sequence[int], device: torch.device, seconds: float) -> dict[tuple[int, int], float]:
    found: dict[tuple[int, int], float] = {}
    for pairs in tournament(players):
        mine = next((pair for pair in pairs if dist.get_rank() in pair), None)

        def exchange(size: int, mine: tuple[int, int] | None = mine) -> float:
            if mine is None:
                return 0.0
            return median_seconds(_Exchange(mine, size, device), device, ROUNDS)

        size, _ = _large_enough(exchange, device, seconds)
        speed = torch.zeros(len(pairs), dtype=torch.float64, device=device)
        taken = exchange(size)
        if mine is not None:
            speed[pairs.index(mine)] = size / taken / 2  # both of a pair add theirs
        dist.all_reduce(speed)
        found.update(zip(pairs, speed.tolist(), strict=True))
    return found


class _Exchange:
    """Sends so many bytes to the other of a pair, and receives as many."""

    def __init__(self, pair: tuple[int, int], size: int, device: torch.device) -> None:
        self.other = pair[0] if dist.get_rank() == pair[1] else pair[1]
        self.sent = torch.zeros(size // 4, device=device)
        self.received = torch.empty_like(self.sent)

    def __call__(self) -> None:
        operations = [  # in this order: gloo's word that it is ready to receive would queue behind its own data
            dist.P2POp(dist.irecv, self.received, self.other),
            dist.P2POp(dist.isend, self.sent, self.other),
        ]
        for request in dist.batch_isend_irecv(operations):
            request.wait()


def _large_enough(timed: Callable[[int], float], device: torch.device, seconds: float) -> tuple[int, float]:
    """Return a size that takes about so long, and the seconds that it did; all ranks find the same."""
    size = FIRST_BYTES
    taken = slowest(timed(size), device)
    while taken < seconds / 2 and size < MOST_BYTES:
        size = min(MOST_BYTES, size * max(2, min(16, int(seconds / max(taken, 1e-9)))))
        taken = slowest(timed(size), device)
    return size, taken
