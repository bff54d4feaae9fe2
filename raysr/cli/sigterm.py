"""SIGTERM, which `kill`, systemd, Kubernetes and `ray job stop` send, ends a command as Ctrl-C does."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Sigterm:
    """Handles the signal; ``came`` says whether it did. A second one leaves the cleaning up alone."""

    came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            return
        self.came = True
        interrupt = signal.getsignal(signal.SIGINT)
        # what a shell starts in the background ignores Ctrl-C
        (interrupt if callable(interrupt) else signal.default_int_handler)(signal.SIGINT, frame)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[Sigterm]:
    """Handle SIGTERM for the block; outside of the main thread Python cannot, and it stays as it is."""
    handler = Sigterm()
    if threading.current_thread() is not threading.main_thread():
        yield handler
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield handler
    finally:
        signal.signal(signal.SIGTERM, before)
