"""Replicas come with the load; one that dies takes only its own streams with it, and comes back."""

import contextlib
import json
import os
import signal
from pathlib import Path

import pytest
from endpoint import Server, messages, pcm16, publish, said, until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from raysr.cluster import Connection
from raysr.pool import Recogniser
from raysr.ports import free_port
from raysr.serving import run
from raysr.serving.settings import ServingConfig

PATIENCE_S = 120.0


def replicas() -> set[int]:
    """Return the processes of the replicas on this machine."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"ServeReplica:raysr" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
    return found


def hears(client: ClientConnection) -> None:
    """Speak a segment, and wait for its final."""
    client.send(pcm16("bad cafe, "))
    while not json.loads(client.recv(timeout=60)).get("is_final"):
        pass


def ended(client: ClientConnection) -> tuple[int | None, str]:
    """Speak on and end the stream; return the code that it was closed with, and what was heard."""
    with contextlib.suppress(ConnectionClosed):
        client.send(pcm16("beg"))
        client.send(json.dumps({"type": "CloseStream"}))
    found = said(messages(client))
    return client.close_code, found


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_replicas_come_with_the_load_and_one_that_is_killed_takes_only_its_own_streams_with_it(
    ray_cluster: Connection, tmp_path: Path, recogniser: Recogniser
) -> None:
    publish(tmp_path / "pool", "first", recogniser, cycle=0)
    limits = {"sessions": 4, "idle_seconds": 2 * PATIENCE_S}  # who waits keeps its place
    options = {"max_replicas": 2, "cpus_per_replica": 0.5, "limits": limits, "fill": 0.5}
    config = ServingConfig.parse({"pool": str(tmp_path / "pool"), "poll_seconds": 0.1, **options})
    server = Server(run.start(config, port=free_port(0)), tmp_path / "pool")
    try:
        with contextlib.ExitStack() as stack:
            early = [stack.enter_context(server.listen()) for _ in range(4)]
            for client in early:
                hears(client)
            (full,) = replicas()
            until(lambda: len(replicas()) == 2, PATIENCE_S)
            late: list[ClientConnection] = []

            def answered() -> bool:
                """A stream is refused while the first replica alone is there for it."""
                client = stack.enter_context(server.listen())
                with contextlib.suppress(ConnectionClosed, TimeoutError):
                    hears(client)
                    late.append(client)
                return bool(late)

            until(answered, PATIENCE_S)
            os.kill(full, signal.SIGKILL)
            cut, going = [ended(client) for client in early], [ended(client) for client in late]
        assert going == [(1000, "beg")]
        assert {code for code, _ in cut} <= {1001, 1006, 1011, 1012, 1013}, "what SDKs come again after"
        until(lambda: len(replicas() - {full}) == 2, PATIENCE_S)
        with server.listen() as again:
            hears(again)
            assert ended(again) == (1000, "beg")
    finally:
        run.stop()
