"""Who may come in: a fixed number of places, given and taken back on the event loop."""

from collections.abc import Iterator
from contextlib import contextmanager


class Full(Exception):
    """Every place is taken."""


class Places:
    """A counter of places; entering a full house raises :class:`Full` at once instead of waiting."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.taken = 0

    @contextmanager
    def enter(self) -> Iterator[None]:
        if self.taken >= self.capacity:
            raise Full(f"all {self.capacity} places are taken")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
