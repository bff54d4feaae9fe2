"""How a client of a remote service waits: for its turn, and before it asks again."""

import email.utils
import random
import threading
import time
from datetime import UTC, datetime


class RateLimit:
    """At most so many requests a minute, evenly spaced; shared by the threads of one process."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._blocked_until = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Sleep until it is this request's turn; a turn that falls into a pause is lost, and another one taken."""
        while True:
            with self._lock:
                turn = max(self._next, time.monotonic())
                self._next = turn + self._gap
            time.sleep(max(0.0, turn - time.monotonic()))
            with self._lock:
                if turn >= self._blocked_until:
                    return

    def pause(self, seconds: float) -> None:
        """Give no turn to anybody for so long, nor to those who wait for theirs: the service asked for it."""
        with self._lock:
            self._blocked_until = max(self._blocked_until, time.monotonic() + seconds)
            self._next = max(self._next, self._blocked_until)


def backoff(attempt: int, first: float, longest: float) -> float:
    """Return the seconds to wait before the next try: twice as long each time, at random by up to a half less."""
    return min(longest, first * 2.0 ** min(attempt, 30)) * random.uniform(0.5, 1.0)


def retry_after(value: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for (RFC 9110, 10.2.3); None if it says nothing."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
