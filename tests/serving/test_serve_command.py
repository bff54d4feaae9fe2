"""`raysr serve` as a process: it says where it listens, ends as it is told to, and leaves nothing behind."""

import signal
from pathlib import Path

import pytest
from processes import descendants, outliving, start

from raysr.cluster import Connection
from raysr.ports import free_port
from raysr.serving.run import health

pytestmark = [pytest.mark.ray, pytest.mark.e2e]


def test_ctrl_c_ends_it_quietly_and_its_ray(pool: Path) -> None:
    port = free_port(0)
    endpoint = start("serve", "--pool", pool, "--port", str(port))
    assert endpoint.stdout is not None
    assert endpoint.stdout.readline().startswith(f"http://127.0.0.1:{port} ")
    ray = descendants(endpoint.pid)
    endpoint.send_signal(signal.SIGINT)
    assert (*endpoint.communicate(timeout=60), endpoint.returncode) == ("", "stopped\n", 0)
    assert not outliving(ray, seconds=20)


def test_sigterm_takes_it_off_a_cluster_that_stays(pool: Path, ray_cluster: Connection) -> None:
    import ray

    port = free_port(0)
    endpoint = start("serve", "--pool", pool, "--port", str(port), address=ray_cluster.address)
    assert endpoint.stdout is not None
    assert endpoint.stdout.readline().startswith(f"http://127.0.0.1:{port} ")
    endpoint.terminate()
    _, told = endpoint.communicate(timeout=60)
    assert (endpoint.returncode, told) == (143, "stopped\n")
    assert health(f"http://127.0.0.1:{port}") is None
    assert ray.get(ray.put(1)) == 1
