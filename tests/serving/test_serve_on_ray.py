"""The endpoint on Ray Serve: what the plain application does, through Serve's proxy, from start to stop."""

import importlib
import json
import socket
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoint import Server, messages, pcm16, publish, said, wav
from toy_language import relative

from raysr.cluster import Connection
from raysr.errors import PoolError, RunError
from raysr.pool import Recogniser
from raysr.ports import check_port, free_port
from raysr.serving import run
from raysr.serving.client import transcribe_http, transcribe_ws
from raysr.serving.settings import ServingConfig

ROOT = Path(__file__).parent.parent.parent


def test_a_port_in_use_is_told_in_one_line(pool: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=f"127.0.0.1:{port}: Address already in use; take another$"):
            check_port("127.0.0.1", port, "take another")


def test_an_empty_pool_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="holds no model to serve"):
        run.start(ServingConfig(pool=str(tmp_path)))


def test_arguments_of_serve_run_are_read_as_yaml() -> None:
    config = ServingConfig.from_arguments({"pool": "p", "chunk_size": "8", "limits.sessions": "3"})
    assert (config.chunk_size, config.limits.sessions) == (8, 3)
    assert ServingConfig.from_arguments({"pool": "p", "limits": {"sessions": 5}}).limits.sessions == 5


@pytest.fixture(scope="module")
def served(
    ray_cluster: Connection, tmp_path_factory: pytest.TempPathFactory, recogniser: Recogniser
) -> Iterator[Server]:
    pool = tmp_path_factory.mktemp("ray") / "pool"
    publish(pool, "first", recogniser, cycle=0)
    config = ServingConfig(pool=str(pool), poll_seconds=0.1, cpus_per_replica=0.5)
    url = run.start(config, port=free_port(0))
    yield Server(url, pool)
    run.stop()


@pytest.mark.ray
def test_one_text_over_both_protocols_and_a_new_model_without_a_restart(
    served: Server, recogniser: Recogniser, tmp_path: Path
) -> None:
    file = tmp_path / "speech.wav"
    file.write_bytes(wav("bad cafe, head ache"))
    with served.listen() as running:
        running.send(pcm16("bad cafe, "))
        assert said([json.loads(running.recv(timeout=60))]) == "bad cafe"
        live, whole = transcribe_ws(served.url, file, pace=0.0), transcribe_http(served.url, file)
        assert live == whole
        assert (live.text, live.model) == ("bad cafe head ache", "first")
        publish(served.pool, "second", relative(recogniser), cycle=1)
        while (health := run.health(served.url)) is None or health["model"] != "second":
            pass
        running.send(pcm16("beg"))
        running.send(json.dumps({"type": "CloseStream"}))
        rest = messages(running)
        assert said(rest) == "beg"
        assert rest[0]["metadata"]["model_info"]["version"] == "second"


@pytest.mark.ray
def test_a_replica_takes_another_configuration_in_place_and_tells_ray_what_it_measures(
    served: Server, recogniser: Recogniser
) -> None:
    from ray import serve

    publish(served.pool, "latest", relative(recogniser), cycle=9)

    def reconfigured(**config: Any) -> None:
        serve.get_app_handle("raysr").broadcast("reconfigure", config).results()

    def until(version: str) -> None:
        while (health := run.health(served.url)) is None or health["model"] != version:
            pass

    until("latest")
    with served.listen() as running:
        reconfigured(entry="first")
        until("first")
        running.send(pcm16("bad cafe"))
        running.send(json.dumps({"type": "Finalize"}))
        message = json.loads(running.recv(timeout=60))
        assert said([message]) == "bad cafe"
        assert message["metadata"]["model_info"]["version"] == "first"
        reconfigured(entry="first", drain=True)
        messages(running)
        assert running.close_code == 1012
    reconfigured()
    until("latest")
    with urllib.request.urlopen(f"{served.url}/metrics", timeout=20) as answer:
        assert 'raysr_final_seconds_count{cause="finalize"} 1.0' in answer.read().decode()


@pytest.mark.ray
def test_serve_listens_once_and_says_where(served: Server) -> None:
    port = int(served.url.rsplit(":", 1)[1])
    with pytest.raises(RunError, match=f"listens on port {port} already"):
        run.start(ServingConfig(pool=str(served.pool)), port=free_port(0))


@pytest.mark.ray
def test_the_application_that_serve_run_builds(served: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    sys.modules.pop("serve", None)
    built = importlib.import_module("serve.app").build({"pool": str(served.pool), "limits.sessions": "4"})
    from ray.serve import Application

    assert isinstance(built, Application)
