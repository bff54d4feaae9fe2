"""Ranks that are killed, stopped, stuck or in error are named by all others: real processes, real signals."""

import multiprocessing
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from raysr.ports import free_port
from raysr.train.peers import Stand, apart
from raysr.train.watch import Watch
from tests.train.ranks import on_ranks

HOST = re.escape(socket.gethostname())
RANKS = 3
Fault = Callable[[int, int], None]


class Running:
    """Ranks that train until something happens to them; the first one holds the group's store, as under Ray."""

    def __init__(
        self,
        folder: Path,
        during: Fault | None = None,
        after: Fault | None = None,
        beside: Fault | None = None,
        patient: bool = False,
    ) -> None:
        self.folder = folder
        multiprocessing.set_forkserver_preload(["torch", "torch._dynamo", "numpy"])
        context, port = multiprocessing.get_context("forkserver"), free_port(0)
        self.processes: list[BaseProcess] = [
            context.Process(target=_train, args=(folder, rank, port, during, after, beside, patient))
            for rank in range(RANKS)
        ]
        for process in self.processes:
            process.start()

    def wait_for_step(self, step: int) -> None:
        self._wait(lambda: all(self._step(rank) >= step for rank in range(RANKS)))

    def send(self, rank: int, number: int) -> None:
        pid = self.processes[rank].pid
        assert pid is not None
        os.kill(pid, number)

    def errors(self, ranks: set[int]) -> dict[int, str]:
        """Wait for the ends of these ranks, and return with which error each one ended."""
        self._wait(lambda: all((self.folder / f"error-{rank}").exists() for rank in ranks))
        return {rank: (self.folder / f"error-{rank}").read_text() for rank in ranks}

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    def _step(self, rank: int) -> int:
        path = self.folder / f"step-{rank}"
        return path.stat().st_size if path.exists() else 0

    def _wait(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < until
            time.sleep(0.05)


def _train(
    folder: Path,
    rank: int,
    port: int,
    during: Fault | None,
    after: Fault | None,
    beside: Fault | None,
    patient: bool,
) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=RANKS)
    model = DistributedDataParallel(nn.Linear(8, 8))
    try:
        with Watch(timeout=2.0, patience=5.0) as watch:
            for number in range(1, 10**9):
                with watch.step(number):
                    if during is not None:
                        during(rank, number)
                    model(torch.ones(1, 8)).sum().backward()
                with open(folder / f"step-{rank}", "a") as file:
                    file.write(".")
                if after is not None:
                    after(rank, number)
                if beside is not None:
                    with watch.together("the loss on dev", patient):
                        beside(rank, number)
                        dist.barrier()
    except Exception as error:
        partial = folder / f".error-{rank}"
        partial.write_text(f"{type(error).__name__}: {error}")
        (folder / f"cause-{rank}").write_text(str(error.__cause__))
        partial.rename(folder / f"error-{rank}")
    time.sleep(120)  # as a worker of Ray's, whose process outlives its training


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def run(**faults: Any) -> Running:
        started.append(Running(tmp_path, **faults))
        return started[-1]

    yield run
    for running in started:
        running.end()


@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_that_is_killed_is_named_the_first_one_too(start: Callable[..., Running], killed: int) -> None:
    running, others = start(), {0, 1, 2} - {killed}
    running.wait_for_step(5)
    running.send(killed, signal.SIGKILL)
    for error in running.errors(others).values():
        assert re.fullmatch(
            rf"RunError: rank {killed} on host {HOST} has ended: it was killed, or its host ran out of memory; "
            r"ranks? [\d and]+ waits? in step \d+",
            error,
        )


@pytest.mark.parametrize("stopped", [0, 2])
def test_a_rank_that_is_stopped_is_named(start: Callable[..., Running], stopped: int) -> None:
    running, others = start(), {0, 1, 2} - {stopped}
    running.wait_for_step(5)
    running.send(stopped, signal.SIGSTOP)
    for error in running.errors(others).values():
        assert re.fullmatch(
            rf"RunError: rank {stopped} on host {HOST} does not answer: .* network is down; "
            r"ranks? [\d and]+ waits? in step \d+",
            error,
        )


def no_such_file(rank: int, number: int) -> None:
    if (rank, number) == (1, 5):
        raise FileNotFoundError("no such\nfile")


def test_a_rank_with_an_error_of_its_own_keeps_it_and_the_others_quote_it(
    start: Callable[..., Running],
) -> None:
    errors = start(during=no_such_file).errors({0, 1, 2})
    assert errors.pop(1) == "FileNotFoundError: no such\nfile"
    for error in errors.values():
        assert re.fullmatch(
            rf"RunError: rank 1 on host {HOST} failed in step 5: FileNotFoundError: no such\\nfile", error
        )


def read_a_slow_disk(rank: int, number: int) -> None:
    if (rank, number) == (1, 5):
        time.sleep(120)


@pytest.mark.parametrize(("when", "where"), [("during", "in"), ("after", "after")])
def test_a_rank_that_is_busy_elsewhere_says_in_which_line(
    start: Callable[..., Running], when: str, where: str
) -> None:
    errors = start(**{when: read_a_slow_disk}).errors({0, 2})
    line = read_a_slow_disk.__code__.co_firstlineno + 2
    waits = "5" if when == "during" else "6"
    for error in errors.values():
        assert re.fullmatch(
            rf"RunError: rank 1 on host {HOST} has been in read_a_slow_disk \(test_watch\.py:{line}\), {where} step 5, "
            rf"for \d+ s; ranks 0 and 2 wait in step {waits}",
            error,
        )


def test_beside_steps_too(start: Callable[..., Running]) -> None:
    errors = start(beside=read_a_slow_disk).errors({0, 2})
    for error in errors.values():
        assert re.fullmatch(
            rf"RunError: rank 1 on host {HOST} has been in read_a_slow_disk \(test_watch\.py:\d+\), in the loss on dev "
            r"after step 5, for \d+ s; ranks 0 and 2 wait in the loss on dev after step 5",
            error,
        )


def search(rank: int, number: int) -> None:
    if (rank, number) == (1, 2):
        time.sleep(6.0)  # three times as long as anybody waits in a step


def test_where_each_takes_its_own_time_only_who_has_ended_is_missing(start: Callable[..., Running]) -> None:
    running = start(beside=search, patient=True)
    running.wait_for_step(5)
    running.send(2, signal.SIGKILL)
    for error in running.errors({0, 1}).values():
        assert f"rank 2 on host {socket.gethostname()} has ended: it was killed" in error


def undisturbed() -> tuple[float, set[str]]:
    total = torch.zeros(1)
    with Watch(timeout=60.0) as watch:
        for number in range(20):
            with watch.step(number):
                total += 1
                dist.all_reduce(total)
    dist.all_reduce(total)
    return float(total), {thread.name for thread in threading.enumerate()}


def test_where_nothing_happens_nothing_is_left_behind() -> None:
    [(total, threads), (other, _)] = on_ranks(2, undisturbed)
    assert total == other
    assert not threads & {"watch", "peers"}


def own_error() -> str:
    try:
        with Watch(timeout=60.0) as watch, watch.step(1):
            if dist.get_rank() == 0:
                torch.ones(2) @ torch.ones(3)
            dist.barrier()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def test_an_error_of_torchs_that_is_no_collectives_is_the_ranks_own() -> None:
    [own, other] = on_ranks(2, own_error)
    assert own.startswith("RuntimeError: inconsistent tensor size")
    assert other == f"RunError: rank 0 on host {socket.gethostname()} failed in step 1: {own}"


def test_without_a_process_group_it_does_nothing() -> None:
    with pytest.raises(ZeroDivisionError), Watch(timeout=1.0) as watch, watch.step(1):
        raise ZeroDivisionError
    assert "watch" not in {thread.name for thread in threading.enumerate()}


def slow_third_rank(rank: int, number: int) -> None:
    if rank == 2 and number >= 4:
        time.sleep(1.0)


def test_a_rank_that_was_told_does_not_begin_another_step(start: Callable[..., Running]) -> None:
    running = start(during=no_such_file, after=slow_third_rank)
    assert re.fullmatch(
        rf"RunError: rank 1 on host {HOST} failed in step 5: FileNotFoundError: .*", running.errors({2})[2]
    )
    assert (running.folder / "cause-2").read_text() == "None"


STRANGE = (
    b"",
    b"GET / HTTP/1.1\r\n\r\n",
    b"[]\n",
    b"[" * 60_000 + b"\n",
    b"no end",
    b'{"token": "", "verdict": "stop"}\n',
)


def told_by_strangers() -> int:
    before = listening()
    with Watch(timeout=60.0) as watch:
        for port in listening() - before:
            for message in STRANGE:
                with socket.create_connection(("localhost", port)) as connection:
                    connection.sendall(message)
                    connection.shutdown(socket.SHUT_WR)
                    assert connection.recv(1) == b""
        for number in range(5):
            with watch.step(number):
                dist.barrier()
        return len(listening() - before)


def listening() -> set[int]:
    """Return the ports that this process listens on, as the kernel has them (proc(5))."""
    links = {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return {
        int(line[1].rpartition(":")[2], 16)
        for line in lines
        if line[3] == "0A" and f"socket:[{line[9]}]" in links
    }


def test_strangers_get_no_answer_and_end_nothing() -> None:
    assert on_ranks(2, told_by_strangers) == [1, 1]


def standing(*ranks: tuple[int, bool, str]) -> dict[int, Stand]:
    return {rank: Stand(step, inside, 0.0, place) for rank, (step, inside, place) in enumerate(ranks)}


@pytest.mark.parametrize(
    ("stands", "expected"),
    [
        (standing((7, True, "wait"), (7, True, "wait")), set()),
        (standing((7, True, "wait"), (7, True, "read"), (7, True, "wait")), {1}),
        (standing((7, True, "wait"), (6, False, "wait"), (7, True, "wait")), {1}),
        (standing((6, True, "wait"), (6, False, "read"), (7, True, "read")), {0}),
        (standing((7, True, "read"), (7, True, "wait")), {0, 1}),
        (
            standing((7, True, "a"), (7, True, "a"), (7, True, "b"), (7, True, "b"), (7, True, "c")),
            {0, 1, 2, 3, 4},
        ),
    ],
)
def test_the_others_wait_for_those_behind_or_in_lines_of_their_own(
    stands: dict[int, Stand], expected: set[int]
) -> None:
    assert apart(stands) == expected
