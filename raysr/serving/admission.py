"""Who may come in: a fixed number of places, given and taken back on the event loop."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from raysr.serving.access import ANYONE


class Full(Exception):
    """Every place is taken; ``own`` says whether the client itself has too many."""

    def __init__(self, told: str, own: bool = False) -> None:
        super().__init__(told)
        self.own = own


class Places:
    """A counter of places; entering a full house raises :class:`Full` at once instead of waiting.

    Args:
        capacity: places in all.
        each: places of a client that is known by its key.
    """

    def __init__(self, capacity: int, each: int) -> None:
        self.capacity, self.each = capacity, each
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """Places that are taken."""
        return self._taken.total()

    @contextmanager
    def enter(self, client: str = ANYONE) -> Iterator[None]:
        """Take a place for the block."""
        if self.taken >= self.capacity:
            raise Full(f"all {self.capacity} places are taken")
        if client != ANYONE and self._taken[client] >= self.each:
            raise Full(f"all {self.each} places of your key are taken", own=True)
        self._taken[client] += 1
        try:
            yield
        finally:
            self._taken[client] -= 1
            if not self._taken[client]:
                del self._taken[client]
