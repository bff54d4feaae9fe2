"""Functions carried out by real ranks: processes that have joined one gloo group."""

import multiprocessing
import pickle
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def on_ranks(ranks: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return what ``function(*arguments)`` returns on each of so many ranks; it is named in a module."""
    # forked from a server that has imported torch already: a tenth of a second instead of seconds
    multiprocessing.set_forkserver_preload(["torch", "torch._dynamo", "numpy"])
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(
            _run, (ranks, folder, function, arguments), nprocs=ranks, start_method="forkserver"
        )
        return [pickle.loads((Path(folder) / f"result-{rank}").read_bytes()) for rank in range(ranks)]


def _run(
    rank: int, ranks: int, folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=timedelta(seconds=60))
    try:
        result = function(*arguments)
        (Path(folder) / f"result-{rank}").write_bytes(pickle.dumps(result))
    finally:
        dist.destroy_process_group()
