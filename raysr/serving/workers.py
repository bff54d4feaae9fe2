"""The threads that decode audio and open sessions, so that the event loop stays free to answer."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class Workers:
    """A small pool of threads; torch runs on one core in each."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(
            threads, thread_name_prefix="raysr-work", initializer=torch.set_num_threads, initargs=(1,)
        )

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run ``function(*arguments)`` on a worker and return what it returns."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    def close(self) -> None:
        """Let the running steps end and take no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
