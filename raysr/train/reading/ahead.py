"""Reading ahead: the batches of the next steps are made in threads while this step is taken."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
State = TypeVar("State")


class Ready(NamedTuple, Generic[Item, State]):
    """What was made for one step.

    Attributes:
        item: the batch.
        state: what its task came with, such as where the sampler stood after it.
        waited: seconds that the step had to wait for the batch.
    """

    item: Item
    state: State
    waited: float


def read_ahead(
    tasks: Iterable[tuple[Callable[[], Item], State]], ahead: int, threads: int
) -> Generator[Ready[Item, State], None, None]:
    """Yield what each task makes, in their order, while the next ones are made.

    Tasks are drawn in the caller's thread and one by one, never more than ``ahead`` beyond what is yielded; so
    whatever draws them may have a state, which belongs to each task exactly. What a task makes may depend on
    nothing but the task: then threads change nothing but the time that is waited.

    Close the generator (``contextlib.closing``) when it is not used up: tasks that have not begun never do, and no
    thread is left when it returns.

    Args:
        tasks: what makes each item, and the state that goes with it.
        ahead: the most items that are made or being made beyond the one that is yielded.
        threads: how many are made at once.

    Raises:
        Exception: what a task raised, when its turn has come.
    """
    if ahead < 1 or threads < 1:
        raise ValueError("reading ahead takes one item and one thread at least")
    remaining = iter(tasks)
    pending: deque[tuple[Future[Item], State]] = deque()
    executor = ThreadPoolExecutor(threads, thread_name_prefix="read-ahead")

    def draw(count: int) -> None:
        pending.extend((executor.submit(make), state) for make, state in islice(remaining, count))

    try:
        draw(ahead)
        while pending:
            future, state = pending.popleft()
            started = time.perf_counter()
            item = future.result()
            waited = time.perf_counter() - started
            draw(1)
            yield Ready(item, state, waited)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
