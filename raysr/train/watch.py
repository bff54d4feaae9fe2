"""Who is missing when the ranks of a training wait for each other.

gloo tells that a connection was closed or that it waited too long, and no rank; NCCL waits on the GPU, where no
exception can reach. Here every rank listens on a port of its own, and is asked when a collective fails: one that has
ended refuses, one that is stopped or cut off gives no answer, one that is busy elsewhere says in which line. Nothing is
sent while all goes well, and no rank is more important than the others: torch's store ends or hangs with the process
that holds it (pytorch/pytorch#129367), the first rank as a rule.

What one rank finds out, or the error of its own that ends it, it tells all others, so that all end with the same words.

NCCL's own watchdog would end the process: :data:`TOLD_TO_TORCH` is in its environment.
"""

import math
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Self

import torch.distributed as dist

from raysr.errors import RunError, one_line
from raysr.train.peers import Peers, Stand, of_frame, of_traceback

TICK_S = 1.0
TOLD_TO_TORCH = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "0"}
"""Environment variables of every rank, set before it joins a group."""


class Watch:
    """Entered by all ranks of the default process group together, around all in which they wait for each other.

    ::

        with Watch(timeout=120) as watch:
            for batch in batches:
                with watch.step(number):
                    update(batch)
                with watch.together("the loss on dev"):
                    evaluate()

    Without a process group, or in one of a single rank, it does nothing.

    Args:
        timeout: seconds that a rank may wait in one line of what they do together; the group's own time-out becomes a
            little longer.
        patience: seconds that a rank has to answer.

    Raises:
        RunError: a collective failed or took too long; names the rank that is missing, or that failed, and its host.
            An error of a rank's own leaves that rank as it is.
    """

    def __init__(self, timeout: float, patience: float = 5.0) -> None:
        self._timeout, self._patience = timeout, patience
        self._step, self._what, self._done = 0, "", 0
        self._inside = self._patient = False
        self._failed: Stand | None = None
        self._verdict: str | None = None
        self._peers: Peers | None = None
        self._left = threading.Event()

    def __enter__(self) -> Self:
        self._thread = threading.get_ident()
        self._moved = time.monotonic()
        group = dist.group.WORLD
        if group is not None and group.size() > 1:
            group.set_timeout(timedelta(seconds=self._timeout + 2 * self._patience))
            self._peers = Peers(self._stand, self._learn, self._patience)
            self._guard = threading.Thread(target=self._watch, args=(self._peers,), name="watch", daemon=True)
            self._guard.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._peers is None:
            return
        try:
            if error is not None:
                self._failed = replace(self._stand(), place=of_traceback(trace))
                self._explain(self._peers, error, self._failed)
        finally:
            self._left.set()
            self._guard.join()
            self._peers.close()

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Be in a step, in which the ranks wait for each other; it fails where any of them has."""
        with self._in(number, "", False):
            yield

    @contextmanager
    def together(self, what: str, patient: bool = False) -> Iterator[None]:
        """Be in something else that all ranks do, in the same order and after the same steps.

        Where ranks also do what takes each its own time, they are ``patient``: only one that has ended or does not
        answer is missing then, and none that is merely somewhere else.
        """
        with self._in(self._step, what, patient):
            yield

    @contextmanager
    def _in(self, step: int, what: str, patient: bool) -> Iterator[None]:
        self._check()
        self._step, self._what, self._patient = step, what, patient
        self._done += 1
        self._inside = True
        yield
        self._inside = False
        self._check()  # before anything that a broken collective left is kept

    def _check(self) -> None:
        if self._verdict is not None:
            raise RunError(self._verdict)

    def _explain(self, peers: Peers, error: BaseException, here: Stand) -> None:
        """Raise what is behind a failed collective; tell the others of any other error."""
        if isinstance(error, RunError) and str(error) == self._verdict:
            return
        said = one_line(f"{type(error).__name__}: {error}")
        if not _is_of_a_collective(error):
            peers.tell(f"{peers.name} failed {here.when}: {said}")
            return
        if self._verdict is None:
            found = (
                peers.missing(here, self._timeout / 2)
                or f"{peers.name} failed {here.when}, all others being there: {said}"
            )
            if self._learn(found):
                peers.tell(found)
        raise RunError(self._verdict) from error

    def _watch(self, peers: Peers) -> None:
        """Find out what it is that a rank waits for where no exception will tell."""
        before, due = self._stand(), self._timeout
        while not self._left.wait(min(TICK_S, self._timeout / 4)):
            here = self._stand()
            if (here.progress, here.place) != (before.progress, before.place):
                before, due, self._moved = here, self._timeout, time.monotonic()
            elif here.inside and here.seconds > due and self._verdict is None:
                due *= 2
                found = peers.missing(here, math.inf if self._patient else self._timeout / 2)
                if found is not None and self._learn(found):
                    peers.tell(found)

    def _learn(self, verdict: str) -> bool:
        """Take note of what is behind it all, and let go of collectives that cannot end; return whether it is news."""
        if self._verdict is not None:
            return False
        self._verdict = verdict
        if self._inside and self._failed is None and dist.group.WORLD is not None:
            dist.group.WORLD.abort()
        return True

    def _stand(self) -> Stand:
        if self._failed is not None:
            return self._failed
        place = of_frame(sys._current_frames().get(self._thread))
        seconds = time.monotonic() - self._moved
        return Stand(self._step, self._inside, seconds, place, self._done, self._what)


def _is_of_a_collective(error: BaseException) -> bool:
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
