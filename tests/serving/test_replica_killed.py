"""A replica that dies takes only its own streams with it; their clients are told to come again, and it comes back."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
from endpoint import Server, messages, pcm16, publish, said
from websockets.exceptions import ConnectionClosed

from raysr.cluster import Connection
from raysr.pool import Recogniser
from raysr.ports import free_port
from raysr.serving import run
from raysr.serving.settings import ServingConfig


def replicas() -> set[int]:
    """Return the processes of the replicas on this machine."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"ServeReplica:raysr" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
    return found


@pytest.mark.ray
def test_a_replica_that_is_killed_takes_only_its_own_streams_with_it_and_comes_back(
    ray_cluster: Connection, tmp_path: Path, recogniser: Recogniser
) -> None:
    publish(tmp_path / "pool", "first", recogniser, cycle=0)
    config = ServingConfig(pool=str(tmp_path / "pool"), poll_seconds=0.1, cpus_per_replica=0.5, replicas=2)
    server = Server(run.start(config, port=free_port(0)), tmp_path / "pool")
    try:
        deadline = time.monotonic() + 120
        while len(before := replicas()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(server.listen(interim_results="true")) for _ in range(8)]
            for client in clients:
                client.send(pcm16("bad cafe, "))
            for client in clients:
                while not json.loads(client.recv(timeout=60)).get("is_final"):
                    pass
            killed = min(before)
            os.kill(killed, signal.SIGKILL)
            cut, going = [], []
            for client in clients:
                try:
                    client.send(pcm16("beg"))
                    client.send(json.dumps({"type": "CloseStream"}))
                except ConnectionClosed:
                    pass
                found = messages(client)
                (going if client.close_code == 1000 else cut).append((client.close_code, said(found)))
        assert {text for _, text in going} == {"beg"}
        assert len(going) + len(cut) == 8
        assert going
        assert cut, "nobody was on the replica that was killed"
        assert {code for code, _ in cut} <= {None, 1001, 1005, 1006, 1011, 1012, 1013}, (
            "what SDKs come again after"
        )
        while len(now := replicas() - {killed}) < 2:
            assert time.monotonic() < deadline, "the replica has not come back"
            time.sleep(0.2)
        assert now != before
        with server.listen() as again:
            again.send(pcm16("bad"))
            again.send(json.dumps({"type": "CloseStream"}))
            assert said(messages(again)) == "bad"
    finally:
        run.stop()
